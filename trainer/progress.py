"""The command line's view of a run: a tqdm bar, previews as files, and an optional TensorBoard log."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor
from tqdm import tqdm

from ..sparsedict_core.errors import FileFormatError
from .callbacks import Callbacks, StepReport
from .previews import save_sheet

F = TypeVar("F", bound=Callable[..., None])


def unheard(method: F) -> F:
    """Where nobody can be told any more (a closed terminal, a pipe without its reader, a full disk), the run goes on."""

    @functools.wraps(method)
    def told(self: Any, *args: Any) -> None:
        with contextlib.suppress(OSError, ValueError):  # a closed stream raises ValueError
            method(self, *args)

    return told  # type: ignore[return-value]


class ConsoleProgress(Callbacks):
    """Bars on stderr. `previews` is the folder that gets them."""

    def __init__(self, tensorboard: str | Path | None = None, previews: Path | None = None) -> None:
        self._bar: tqdm | None = None
        self._name = ""
        self._writer: Any = None
        self._previews = previews
        if tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(tensorboard))

    def _switch(self, name: str, total: int, unit: str, done: int) -> tqdm:
        if self._bar is None or self._name != name:
            self._close_bar()
            # From what an earlier run has done, or the time left would be reckoned as if this one had.
            self._name, self._bar = name, tqdm(total=total, desc=name, unit=unit, initial=done, disable=sys.stderr is None)
        return self._bar

    def _close_bar(self) -> None:
        if self._bar is not None:
            bar, self._bar = self._bar, None
            bar.close()

    def _log(self, method: str, *args: Any) -> None:
        if self._writer is None:
            return
        try:
            getattr(self._writer, method)(*args)
        except OSError as error:
            self._writer = None
            self.on_warning(f"the TensorBoard log ends here: {error.strerror or error}.")

    def _say(self, text: str) -> None:
        if sys.stdout is not None:
            encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
            tqdm.write(text.encode(encoding, "replace").decode(encoding))

    @unheard
    def close(self) -> None:
        """At the end of the run, however it ended: TensorBoard's writer holds its last events back until then."""
        self._log("close")
        self._close_bar()

    @unheard
    def on_stage(self, name: str, detail: str = "") -> None:
        self._close_bar()
        if detail:
            self._say(f"{name}: {detail}")

    @unheard
    def on_data(self, lines: list[str]) -> None:
        self._close_bar()
        self._say("\n".join(lines))

    @unheard
    def on_progress(self, name: str, done: int, total: int) -> None:
        bar = self._switch(name, total, "it", 0)
        bar.update(done - bar.n)

    @unheard
    def on_step(self, report: StepReport) -> None:
        for name in ("loss", "smoothed_loss", "density", "target_density", "dead_atoms", "learning_rate", "quiet_ratio"):
            value = getattr(report, name)
            if value is not None:
                self._log("add_scalar", name, value, report.step)
        bar = self._switch("training", report.steps, "step", report.step - 1)
        # In ASCII: a bar that an encoding cannot print would not be there at all.
        bar.set_postfix_str(
            f"loss {report.smoothed_loss:.4f}, density {report.density:.2f} (aim {report.target_density:.2f}), dead {report.dead_atoms}",
            refresh=False,
        )
        bar.update(report.step - bar.n)

    @unheard
    def on_preview(self, step: int, prompts: list[str], images: Tensor, base_images: Tensor) -> None:
        self._log("add_images", "preview", (images + 1) / 2, step)
        if self._previews is not None:
            try:
                self._say(f"preview: {save_sheet(self._previews, step, prompts, images, base_images)}")
            except FileFormatError as error:
                self.on_warning(str(error))

    @unheard
    def on_stopped(self, step: int, steps: int, path: Path, checkpoint: Path | None) -> None:
        on = f"--resume goes on from {checkpoint}" if checkpoint else "there is no checkpoint to go on from"
        self._say(f"stopped after {step} of {steps} steps; the adapter so far is {path}, and {on}.")

    @unheard
    def on_warning(self, text: str) -> None:
        self._say(f"warning: {text}")
