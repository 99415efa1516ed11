"""The command line's view of a run: a tqdm bar, and an optional TensorBoard log."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from .callbacks import Callbacks, StepReport


class ConsoleProgress(Callbacks):
    """Bars on stderr."""

    def __init__(self, tensorboard: str | Path | None = None) -> None:
        self._bar: tqdm | None = None
        self._name = ""
        self._writer = None
        if tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(tensorboard))

    def _switch(self, name: str, total: int, unit: str) -> tqdm:
        if self._bar is None or self._name != name:
            self._close_bar()
            self._name, self._bar = name, tqdm(total=total, desc=name, unit=unit)
        return self._bar

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def close(self) -> None:
        """At the end of the run, however it ended: TensorBoard's writer holds its last events back until then."""
        self._close_bar()
        if self._writer is not None:
            self._writer.close()

    def on_stage(self, name: str, detail: str = "") -> None:
        self._close_bar()
        if detail:
            tqdm.write(f"{name}: {detail}")

    def on_data(self, lines: list[str]) -> None:
        self._close_bar()
        tqdm.write("\n".join(lines))

    def on_progress(self, name: str, done: int, total: int) -> None:
        bar = self._switch(name, total, "it")
        bar.update(done - bar.n)

    def on_step(self, report: StepReport) -> None:
        bar = self._switch("training", report.steps, "step")
        bar.set_postfix_str(
            f"loss {report.smoothed_loss:.4f}, density {report.density:.2f}→{report.target_density:.2f}, dead {report.dead_atoms}",
            refresh=False,
        )
        bar.update(report.step - bar.n)
        if self._writer is not None:
            for name in ("loss", "smoothed_loss", "density", "target_density", "dead_atoms", "learning_rate", "quiet_ratio"):
                value = getattr(report, name)
                if value is not None:
                    self._writer.add_scalar(name, value, report.step)

    def on_preview(self, step: int, prompts: list[str], images: Tensor, base_images: Tensor) -> None:
        if self._writer is not None:
            self._writer.add_images("preview", (images + 1) / 2, step)

    def on_stopped(self, step: int, steps: int, path: Path, checkpoint: Path | None) -> None:
        tqdm.write(f"stopped after {step} of {steps} steps; the adapter so far is {path}, and --resume goes on from {checkpoint}.")

    def on_warning(self, text: str) -> None:
        tqdm.write(f"warning: {text}")
