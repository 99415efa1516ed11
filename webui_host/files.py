"""The web UI's folder of adapters: names as tags write them, and what the files hold, read once."""

from __future__ import annotations

import difflib
import hashlib
from collections import OrderedDict
from pathlib import Path

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.errors import TagError
from ..sparsedict_core.file_format import load

SUFFIX = ".safetensors"
KEPT = 4  # adapters in memory
_read: OrderedDict[tuple[str, int, int], SparseAdapter] = OrderedDict()
_hashes: dict[tuple[str, int, int], str] = {}


def default_folder() -> Path:
    """--sparsedict-dir, or SparseDict beside the host's other models; made where it is missing."""
    from modules import paths, shared

    given = getattr(shared.cmd_opts, "sparsedict_dir", None)
    folder = Path(given) if given else Path(paths.models_path) / "SparseDict"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def names(folder: Path) -> dict[str, Path]:
    """Name (the path below the folder, with "/", without the ending) → file, sorted."""
    found = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob(f"*{SUFFIX}") if path.is_file()}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def find(name: str, folder: Path) -> Path:
    """The file of a tag's name: its path below the folder, or the file's own name where only one has it.

    Raises TagError with the nearest names.
    """
    known = names(folder)
    wanted = name.replace("\\", "/").removesuffix(SUFFIX)
    if wanted in known:
        return known[wanted]
    matches = [path for known, path in known.items() if known.rsplit("/", 1)[-1] == wanted]
    if len(matches) == 1:
        return matches[0]
    if matches:
        options = ", ".join(known for known in known if known.rsplit("/", 1)[-1] == wanted)
        raise TagError(f"there are several adapters named {name!r}: {options}; write the folder too.")
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.4) or list(known)[:3]
    hint = f"near names are {', '.join(near)}" if near else "the folder is empty"
    raise TagError(f"there is no adapter {name!r} in {folder.name} ({hint}); check the name, or refresh after adding a file.")


def _state(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path), status.st_mtime_ns, status.st_size


def read(path: Path) -> SparseAdapter:
    """The adapter in a file. Raises FileFormatError naming the file."""
    key = _state(path)
    if key not in _read:
        _read[key] = load(path)
    _read.move_to_end(key)
    while len(_read) > KEPT:
        _read.popitem(last=False)
    return _read[key]


def short_hash(path: Path) -> str:
    """The first twelve digits of the file's SHA-256, for the picture's own text."""
    key = _state(path)
    if key not in _hashes:
        _hashes[key] = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return _hashes[key]
