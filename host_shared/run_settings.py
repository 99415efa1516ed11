"""What a host decides of a training run for its users: how long an effort is, which run goes on, what is kept where."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..trainer.presets import PRESETS
from .file_names import unused

if TYPE_CHECKING:
    from ..trainer.backends.base import Backend
    from ..trainer.config import TrainConfig

#: Steps and quiet samples of each effort.
EFFORTS = {"quick": (100, 32), "balanced": (300, 96), "thorough": (800, 96)}


def decided(effort: str, out: Path, word: str, seed: int, cache: Path) -> dict[str, Any]:
    """The settings of a run that its effort and its host decide; `cache` is where quiet samples are kept for all runs."""
    steps, quiet = EFFORTS[effort]
    return {"out": str(out), "placeholder": word.strip() or None, "seed": seed, "steps": steps, "quiet_samples": quiet, "cache": str(cache)}


def config_of(preset: str, values: Mapping[str, Any], asked: Collection[str], backend: Backend, parameters: int) -> TrainConfig:
    """`values` over those of the preset; `asked` are the names that somebody has chosen, the rest may follow from the model and its memory.

    `parameters` are the denoiser's. Raises TrainingError for values that are none.
    """
    from ..trainer.config import TrainConfig
    from ..trainer.fit import fitted

    return fitted(TrainConfig(**{**PRESETS[preset], **values}), backend, asked, parameters)


def file_of_run(path: Path, resume: bool) -> Path:
    """Where a run of this name writes: where it goes on, the file of the run that was stopped last, else a name that is free."""
    return (begun(path) if resume else None) or unused(path)


def begun(path: Path) -> Path | None:
    """The file of the run to go on with: of `path`, `path_2`, …, the one whose checkpoint was written last; None where there is none."""
    from ..trainer.checkpoint import folder_of, newest

    number = re.compile(rf"{re.escape(path.stem)}(_\d+)?")
    names = [found.stem for found in path.parent.glob("*.checkpoints") if number.fullmatch(found.stem)]
    kept = {file: newest(folder_of(file)) for file in (path.with_name(f"{name}{path.suffix}") for name in names)}
    return max((file for file in kept if kept[file]), key=lambda file: kept[file].stat().st_mtime_ns, default=None)
