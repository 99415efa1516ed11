"""The command line's view of a run: a tqdm bar, previews as files, and its log."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor
from tqdm import tqdm

from ..sparsedict_core.errors import FileFormatError
from ..sparsedict_core.shown_text import escaped
from .callbacks import Callbacks, StepReport
from .config import TrainConfig
from .previews import folder_of, save_sheet
from .run_log import RunLog

F = TypeVar("F", bound=Callable[..., None])


LOGGED = ("loss", "smoothed_loss", "density", "target_density", "dead_atoms", "learning_rate", "quiet_ratio")


def unheard(method: F) -> F:
    """Where nobody can be told any more (a closed terminal, a pipe without its reader, a full disk), the run goes on."""

    @functools.wraps(method)
    def guarded(self: Any, *args: Any) -> None:
        with contextlib.suppress(OSError, ValueError):  # a closed stream raises ValueError
            method(self, *args)

    return guarded  # type: ignore[return-value]


class Lines:
    """What a bar is on a terminal, for a log or a pipe: its first state, its last, and one every half minute, a line each."""

    EVERY = 30.0  # seconds
    FORMAT = "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
    FIRST = "{desc}: {n_fmt}/{total_fmt} [{unit}s{postfix}]"  # nothing to take a rate from

    def __init__(self, total: int, desc: str, unit: str, initial: int, disable: bool = False) -> None:
        self.n, self.initial, self._postfix = initial, initial, ""
        self._facts = {"total": total, "prefix": desc, "unit": unit}
        self._first: tuple[float, int] | None = None  # when the first state was told, and which
        self._last = -self.EVERY
        self._written = initial

    def set_postfix_str(self, text: str, refresh: bool = False) -> None:
        self._postfix = text

    def update(self, count: int) -> None:
        self.n += count
        if time.monotonic() - self._last >= self.EVERY:
            self._write()

    def close(self) -> None:
        if self.n != self._written:
            self._write()

    def _write(self) -> None:
        self._last, self._written = time.monotonic(), self.n
        began, initial = self._first or (self._last, self.n)
        form = self.FORMAT if self._first else self.FIRST
        self._first = began, initial
        line = tqdm.format_meter(n=self.n, elapsed=self._last - began, initial=initial, postfix=self._postfix, bar_format=form, **self._facts)
        print(line, file=sys.stderr, flush=True)


class ConsoleProgress(Callbacks):
    """Bars on stderr, lines where that is no terminal; of a run of `config` also its previews and its log."""

    def __init__(self, config: TrainConfig | None = None) -> None:
        self._bar: tqdm | Lines | None = None
        self._name = ""
        self._previews: Path | None = None
        self._log: RunLog | None = None
        if config is not None:
            out = Path(config.out)
            self._previews = folder_of(out)
            self._log = RunLog(config.tensorboard, config.wandb, out.stem, config.to_dict(), self.on_warning)

    def _switch(self, name: str, total: int, unit: str, done: int) -> tqdm | Lines:
        if self._bar is None or self._name != name:
            self._close_bar()
            # From what an earlier run has done, or the time left would be reckoned as if this one had.
            bar = tqdm if sys.stderr is None or sys.stderr.isatty() else Lines
            self._name, self._bar = name, bar(total=total, desc=name, unit=unit, initial=done, disable=sys.stderr is None)
        return self._bar

    def _close_bar(self) -> None:
        if self._bar is not None:
            bar, self._bar = self._bar, None
            bar.close()

    def _say(self, *lines: str) -> None:
        if sys.stdout is not None:
            encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
            tqdm.write("\n".join(map(escaped, lines)).encode(encoding, "replace").decode(encoding))

    @unheard
    def close(self) -> None:
        """At the end of the run, however it ended: TensorBoard's writer holds its last events back until then."""
        if self._log is not None:
            self._log.close()
        self._close_bar()

    @unheard
    def on_stage(self, name: str, detail: str = "") -> None:
        self._close_bar()
        if detail:
            self._say(f"{name}: {detail}")

    @unheard
    def on_data(self, lines: list[str]) -> None:
        self._close_bar()
        self._say(*lines)

    @unheard
    def on_progress(self, name: str, done: int, total: int) -> None:
        bar = self._switch(name, total, "it", 0)
        bar.update(done - bar.n)

    @unheard
    def on_step(self, report: StepReport) -> None:
        if self._log is not None:
            values = {name: getattr(report, name) for name in LOGGED}
            self._log.numbers({name: value for name, value in values.items() if value is not None}, report.step)
        bar = self._switch("training", report.steps, "step", report.step - 1)
        # In ASCII: a bar that an encoding cannot print would not be there at all.
        bar.set_postfix_str(
            f"loss {report.smoothed_loss:.4f}, density {report.density:.2f} (aim {report.target_density:.2f}), dead {report.dead_atoms}",
            refresh=False,
        )
        bar.update(report.step - bar.n)

    @unheard
    def on_preview(self, step: int, prompts: list[str], images: Tensor, base_images: Tensor) -> None:
        if self._log is not None:
            self._log.pictures(prompts, images, step)
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
