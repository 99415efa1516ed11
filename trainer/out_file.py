"""Whose the file and the checkpoints at a run's `out` are: refused before the training, not after it, where they are another run's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..sparsedict_core.errors import FileFormatError, TrainingError
from ..sparsedict_core.file_format import read_metadata
from . import checkpoint
from .backends.base import Backend
from .config import TrainConfig
from .data import ConceptData

SUFFIX = ".safetensors"


def identity(config: TrainConfig, backend: Backend, data: ConceptData, prior: ConceptData | None) -> dict[str, Any]:
    """The settings, and hashes of what they don't tell: a checkpoint goes with these images and this base."""
    return {
        **config.to_dict(),
        "images_hash": data.content_hash(),
        "base_fingerprint": backend.fingerprint(),
        "prior_hash": None if prior is None else prior.content_hash(),
        # Equal weights in fp16 and fp32 have one fingerprint, and other steps.
        "dtype": str(backend.dtype),
    }


def check_place(out: Path) -> None:
    """Refuse a place that cannot be written to, before the training, not after it."""
    if out.suffix.lower() != SUFFIX:
        raise TrainingError(f"{out} should end in {SUFFIX}; choose another out.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"the folder {out.parent} cannot be made ({error.strerror}); choose another out.") from error
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise TrainingError(f"{out} cannot be written; choose another out, a file in a folder that is writable.")


def check_out(config: TrainConfig, out: Path) -> None:
    """Refuse a place that holds what another run has left."""
    folder = checkpoint.folder_of(out)
    kept = checkpoint.newest(folder)
    if config.overwrite or (config.resume and kept is not None):
        return
    if out.exists():
        nothing = f", and there is no checkpoint in {folder} to go on from" if config.resume else ""
        raise TrainingError(f"{out} exists{nothing}; choose another out, or set overwrite.")
    if kept is not None:
        raise TrainingError(f"{kept} is left of an earlier run; go on from it with resume, choose another out, or set overwrite.")


def check_begun(config: TrainConfig, out: Path, settings: dict[str, Any], kept: Path) -> None:
    """Refuse to go on where the file at `out` is not what the run of the checkpoint `kept` has written."""
    if config.overwrite or not out.exists():
        return
    try:
        found = read_metadata(out)
    except FileFormatError:
        found = {}
    training = found.get("training")
    stored = {**found, **training} if isinstance(training, dict) else {}
    same_run = all(stored.get(name) == settings[name] for name in (*checkpoint.ORIGINS, "seed"))
    # What was pruned or scaled since, and saved in its place, is another's work too.
    if not same_run or found.get("lineage"):
        raise TrainingError(f"{out} was not written by the run of {kept}; move it elsewhere to go on, or start a new run under another name.")
