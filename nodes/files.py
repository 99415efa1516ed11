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
    """Names below the folders, as the host caches them: it looks again when a folder has changed."""
    return folder_paths.get_filename_list(FOLDER)


def path_of(name: str) -> Path:
    """Where the file is. Raises FileFormatError if it is not there."""
    found = folder_paths.get_full_path(FOLDER, name)
    if found is None:
        raise FileFormatError(missing(name))
    return Path(found)


def missing(name: str) -> str:
    return f"{name!r} is not in models/{FOLDER}; put the file there and refresh the node definitions (R), or choose another file."


def check(name: str | None) -> bool | str:
    """For `validate_inputs`: True, or what is wrong with the file's name. None: the name comes over a link."""
    return True if name is None or folder_paths.get_full_path(FOLDER, name) is not None else missing(name)


def fingerprint(name: str | None) -> str:
    """Changes when the file does; never random, so that the host's cache holds. None: the name comes over a link."""
    if name is None:
        # An error would count as a change at each run, and what comes over the link is part of the host's own key.
        return "linked"
    found = folder_paths.get_full_path(FOLDER, name)
    if found is None:
        return f"{name}: missing"
    status = os.stat(found)
    return f"{found}: {status.st_size} bytes, {status.st_mtime_ns}"


def read(name: str) -> SparseDict:
    """The file as the value of a SPARSE_DICT socket. Raises FileFormatError naming the file."""
    return SparseDict(load(path_of(name)), Path(name).stem)


def trigger_words(value: SparseDict) -> str:
    """`zorp, fendo`"""
    return ", ".join(value.adapter.trigger_words)
