"""The folder `models/sparse_dicts`: registered with the host, listed, read and fingerprinted."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import folder_paths

from ..sparsedict_core.errors import FileFormatError
from ..sparsedict_core.file_format import load
from .socket import SparseDict

FOLDER = "sparse_dicts"
UI = "sparsedict_file"  # under which a node tells the front end which file it has written


def register() -> None:
    """Make the folder known; folders that extra_model_paths.yaml names for it stay."""
    default = os.path.join(folder_paths.models_dir, FOLDER)
    with contextlib.suppress(OSError):  # models may be on a read-only disk
        os.makedirs(default, exist_ok=True)
    folder_paths.add_model_folder_path(FOLDER, default, is_default=True)
    paths, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, {".safetensors"})


register()


def choices() -> list[str]:
    """Names below the folders, as the host caches them: it looks again when a folder has changed. Checkpoints of trainings are no dictionaries."""
    return [name for name in folder_paths.get_filename_list(FOLDER) if not any(part.endswith(".checkpoints") for part in folders_of(name))]


def folders_of(name: str) -> list[str]:
    return name.replace("\\", "/").split("/")[:-1]


def found_at(name: str) -> str | None:
    """The file of a name, also where the name is of another system: `sub\\x.safetensors` is `sub/x.safetensors` here, or the other way round."""
    for form in (name, name.replace("\\", "/")):
        found = folder_paths.get_full_path(FOLDER, form)
        if found is not None:
            return found
    return None


def name_of(path: Path) -> str | None:
    """The name by which the loaders find a file; None where they would find none, or another one."""
    for folder in folder_paths.get_folder_paths(FOLDER):
        if path.is_relative_to(folder):
            name = str(path.relative_to(folder))
            found = found_at(name)
            if found is not None and os.path.realpath(found) == os.path.realpath(path):
                return name
    return None


def shown_name(path: Path) -> list[str]:
    """What a node that has written `path` says under `UI`."""
    name = name_of(path)
    return [] if name is None else [name]


def path_of(name: str) -> Path:
    """Where the file is. Raises FileFormatError if it is not there."""
    found = found_at(name)
    if found is None:
        raise FileFormatError(missing(name))
    return Path(found)


def missing(name: str) -> str:
    return f"{name!r} is not in models/{FOLDER}; put the file there and refresh the node definitions (R), or choose another file."


def check(name: str | None) -> bool | str:
    """For `validate_inputs`: True, or what is wrong with the file's name. None: the name comes over a link."""
    return True if name is None or found_at(name) is not None else missing(name)


def fingerprint(name: str | None) -> str:
    """Changes when the file does; never random, so that the host's cache holds. None: the name comes over a link."""
    if name is None:
        # An error would count as a change at each run, and what comes over the link is part of the host's own key.
        return "linked"
    found = found_at(name)
    if found is None:
        return f"{name}: missing"
    status = os.stat(found)
    return f"{found}: {status.st_size} bytes, {status.st_mtime_ns}"


def read(name: str) -> SparseDict:
    """The file as the value of a SPARSE_DICT socket. Raises FileFormatError naming the file."""
    path = path_of(name)
    return SparseDict(load(path), path.stem)


def trigger_words(value: SparseDict) -> str:
    """`zorp, fendo`"""
    return ", ".join(value.adapter.trigger_words)
