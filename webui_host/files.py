"""The web UI's folder of adapters: names as tags write them, and what the files hold, read once."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.errors import TagError
from ..sparsedict_core.file_format import load
from ..sparsedict_core.shown_text import shown

SUFFIX = ".safetensors"
KEPT = 4  # adapters in memory
_read: OrderedDict[tuple[str, int, int], SparseAdapter] = OrderedDict()
_hashes: dict[tuple[str, int, int], str] = {}
_left_out: set[Path] = set()


def default_folder() -> Path:
    """--sparsedict-dir, or SparseDict beside the host's other models; made where it is missing."""
    from modules import paths, shared

    given = getattr(shared.cmd_opts, "sparsedict_dir", None)
    folder = Path(given) if given else Path(paths.models_path) / "SparseDict"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def names(folder: Path) -> dict[str, Path]:
    """Name (the path below the folder, with "/", without the ending) → file, sorted."""
    found = {path.relative_to(folder).with_suffix("").as_posix(): path for path in _below(folder) if path.is_file()}
    for name in [name for name in found if not name.isprintable() or any(sign in name for sign in "<>:")]:
        path = found.pop(name)
        if path not in _left_out:
            _left_out.add(path)
            print(f"[SparseDict] {shown(path.name)} is left out: no tag can name it; rename it.")
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def _below(folder: Path) -> Iterator[Path]:
    """Adapters' files below a folder, also behind links to folders, each real folder once."""
    seen = set()
    for root, folders, found in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(root, name) for name in found if name.lower().endswith(SUFFIX))


def find(name: str, folder: Path) -> Path:
    """The file of a tag's name: its path below the folder, or the file's own name where only one has it.

    Raises TagError with the nearest names.
    """
    known = names(folder)
    wanted = name.replace("\\", "/").removesuffix(SUFFIX)
    if wanted in known:
        return known[wanted]
    own = {path: path.rsplit("/", 1)[-1] for path in known}
    matches = [path for path in known if own[path] == wanted]
    if len(matches) == 1:
        return known[matches[0]]
    if matches:
        raise TagError(f"there are several adapters named {name!r}: {', '.join(matches)}; write the folder too.")
    written = {text.lower(): path for path in reversed(known) for text in (path, own[path])}
    near = list(dict.fromkeys(written[text] for text in difflib.get_close_matches(wanted.lower(), written, n=3, cutoff=0.4)))
    if near:
        hint = f"near names are {', '.join(near)}"
    else:
        hint = f"there is {', '.join(list(known)[:3])}" if known else "the folder is empty"
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
