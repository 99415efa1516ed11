"""Names that people give to files that a host writes: below one folder, and of nothing that is there already."""

from __future__ import annotations

import os
from pathlib import Path

from ..sparsedict_core.errors import FileFormatError

LONGEST_PATH, LONGEST_PART = 1000, 200  # characters, and bytes


def target(root: Path, filename: str) -> Path:
    """The file's path below `root`. Raises FileFormatError for a name that is empty or leads elsewhere."""
    name = filename.strip().replace("\\", "/").removesuffix(".safetensors")
    if not is_file_name(name):
        raise FileFormatError(f"{filename!r:.80} is no name that a file can have: it is too long, or holds a zero byte or half a character; choose another.")
    root = Path(os.path.realpath(root))
    path = Path(os.path.realpath(root / f"{name}.safetensors"))
    if not name or name.endswith("/"):
        raise FileFormatError(f"{filename!r} names no file; give a name such as zorp.")
    if root not in path.parents or Path(name).is_absolute() or ":" in name:
        raise FileFormatError(f"{filename!r} leads out of the folder; give a name below it, without .., a drive or another colon.")
    return path


def is_file_name(name: str) -> bool:
    """Whether every part can name a file, with room for a number and for the name of a file that is being written."""
    try:
        return "\0" not in name and len(name) < LONGEST_PATH and all(len(part.encode()) <= LONGEST_PART for part in name.split("/"))
    except UnicodeEncodeError:
        return False


def unused(path: Path) -> Path:
    """`path`, or the first of `path_2`, `path_3`, … that neither exists nor is left to be written by a training that was stopped."""
    from ..trainer.checkpoint import folder_of

    number, wanted = 2, path
    while wanted.exists() or folder_of(wanted).exists():
        wanted, number = path.with_name(f"{path.stem}_{number}{path.suffix}"), number + 1
    return wanted
