"""What a run tells whoever started it. A command line, a node and a test each give their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor


@dataclass(frozen=True)
class StepReport:
    """One step, for people."""

    step: int  # 1, 2, …
    steps: int
    loss: float
    smoothed_loss: float
    density: float  # activation density, mean over sites
    target_density: float
    silent_atoms: int  # atoms that fired nowhere in this step
    dead_atoms: int  # atoms silent for long
    learning_rate: float
    quiet_ratio: float | None  # ‖ΔO‖² on quiet rows / on the concept's
    seconds_left: float


class Interrupted(Exception):
    """Raised within a step or a sampling that is to be given up: by the loop's own questions, or by a host's backend."""


class Callbacks:
    """Does nothing; override what is wanted."""

    def on_stage(self, name: str, detail: str = "") -> None:
        """A part of the run begins: "quiet samples", "training", "importance", …"""

    def on_data(self, lines: list[str]) -> None:
        """What the run learns from, and what of a folder it does not use: lines for people, before anything takes long."""

    def on_progress(self, name: str, done: int, total: int) -> None:
        """Progress within a stage other than training."""

    def on_step(self, report: StepReport) -> None:
        """After each step."""

    def on_preview(self, step: int, prompts: list[str], images: Tensor, base_images: Tensor) -> None:
        """Previews (B, 3, H, W) in [-1, 1] beside the base's pictures from the same noise."""

    def on_checkpoint(self, step: int, path: Path) -> None:
        """A checkpoint was written."""

    def on_warning(self, text: str) -> None:
        """Something that the user should know and that doesn't stop the run."""

    def on_stopped(self, step: int, steps: int, path: Path, checkpoint: Path | None) -> None:
        """The run was stopped after `step` of `steps`; its adapter is at `path`, and it can go on from `checkpoint`."""

    def should_stop(self) -> bool:
        """Asked often, also within a step and while quiet samples are made; True ends the run: with a checkpoint and a usable
        adapter where a step was done."""
        return False
