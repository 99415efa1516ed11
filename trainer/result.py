"""The end of a run: the adapter is frozen, its atoms are ranked, and it is saved, whatever goes wrong with the ranking."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.errors import FileFormatError, first_line
from ..sparsedict_core.file_format import DTYPES, save
from ..sparsedict_core.importance import ImportanceStats
from . import checkpoint
from .backends.base import Backend
from .batches import TrainingSet
from .calibrate import BATCHES, calibrate
from .callbacks import Callbacks
from .config import TrainConfig
from .data import ConceptData
from .distribution import Processes
from .stopping import interrupt_flag, interruptions

MAX_CAPTIONS = 32  # in the file
STOPPED_BATCHES = 2  # for the importance of a run that was stopped: whoever stops it does not want to wait


@dataclass
class TrainResult:
    """A finished or stopped run."""

    adapter: SparseAdapter
    path: Path
    log: list[dict[str, float]]  # one entry a step: loss, density, target_density, dead_atoms, learning_rate
    stats: ImportanceStats
    steps: int  # steps done; fewer than asked where the run was stopped
    seconds: float  # of the steps alone
    checkpoint: Path | None = None  # where a stopped run can go on from
    interrupted: bool = False  # by the host, while the importance was gathered: the adapter is whole, and whoever asked wants nothing more
    signal: int | None = None  # that the run, or its ranking, was ended early by: Ctrl-C's is 2

    def _repr_html_(self) -> str:
        """For notebooks."""
        return self.adapter._repr_html_()


@dataclass(frozen=True)
class End:
    """How a run ended, after its steps."""

    stats: ImportanceStats
    cut_short: bool  # by the host
    signal: int | None  # that hurried it


def ranked_and_saved(
    config: TrainConfig, backend: Backend, adapter: SparseAdapter, sets: list[TrainingSet], report: Callbacks, processes: Processes,
    stopped: bool, overwrite: bool, kept: Path | None,
) -> End:  # fmt: skip
    """Rank the atoms and save. `overwrite`: whether the file that may be there is to be replaced; `kept`:
    the last checkpoint, for what is said where the ranking fails."""
    report.on_stage("importance")
    adapter.requires_grad_(False)
    stats, cut_short, failure = ImportanceStats(), False, None
    progress, out = partial(report.on_progress, "importance"), Path(config.out)
    with interrupt_flag() as hurried:

        def wish() -> bool:
            # One process that hurried alone would leave the others waiting for its part of the base.
            return bool(processes.any(hurried.is_set())) if getattr(backend, "in_step", False) else hurried.is_set()

        try:
            try:
                batches = STOPPED_BATCHES if stopped else BATCHES
                stats = calibrate(config, backend, adapter, sets, progress, batches, responses=not stopped, hurried=wish)
            except interruptions(backend):
                cut_short = True
                with contextlib.suppress(*interruptions(backend)):
                    stats = calibrate(config, backend, adapter, sets, progress, 1, responses=False)
        except BaseException as error:  # an interrupt too: the trained adapter is not lost for its ranking
            failure = error
        if processes.main:
            try:
                save(adapter, out, dtype=DTYPES[config.save_precision], overwrite=overwrite, moments=config.moments)
            except FileFormatError as error:
                if kept is None:
                    raise
                raise FileFormatError(f"{str(error).rstrip('.')}; resume then goes on from {kept}.") from error
    processes.wait()
    if failure is not None:
        report.on_warning(
            f"the atoms could not be ranked ({first_line(failure)}): {out} draws as it should, but cannot be pruned well; "
            f"resume ranks them, from {kept}."
        )
        raise failure
    if hurried.is_set():
        report.on_warning(f"interrupted while the atoms were ranked: {out} is whole, with a ranking of fewer pictures than usual.")
    return End(stats, cut_short, hurried.number)


def summary(config: TrainConfig, data: ConceptData, state: checkpoint.RunState, seconds: float) -> dict:
    """What the file says of its training."""
    last = state.log[-1] if state.log else {}
    return {
        "images": len(data.items),
        "images_hash": data.content_hash(),
        "caption": config.caption,
        # What shrinking and merging draw the adapter's own pictures for.
        "captions": list(dict.fromkeys(text for item in data.items for text in item.captions))[:MAX_CAPTIONS],
        "steps": state.step,
        "seed": config.seed,
        "loss": state.smoothed_loss,
        "density": last.get("density"),
        "target_density": config.density,
        "dead_atoms": last.get("dead_atoms"),
        "learning_rate": config.rate,
        "quiet_weight": config.quiet_weight,
        "nested": config.nested,
        "seconds": round(seconds, 1),
    }
