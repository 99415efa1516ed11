"""A training run as a host's front end sees it: a log, events, the newest preview and the wish to end it. A host's class sends the events on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from torch import Tensor

from ..sparsedict_core.shown_text import escaped
from ..trainer.callbacks import Callbacks, StepReport
from .run_state import RunState

EVENTS_A_SECOND = 10
LINES = 40  # of the log that tell of steps


class RunEvents(Callbacks):
    """`lines` is the log."""

    def __init__(self, state: RunState) -> None:
        self.state = state
        self.lines: list[str] = []
        self._sent = self._stage_began = 0.0

    # -- what a host does in its own way

    def send(self, data: dict[str, Any]) -> None:
        """An event, as JSON has it."""
        self.state.note(data)

    def progress(self, done: int, total: int) -> None:
        """How far the run is, a few times a second."""

    def say(self, text: str) -> None:
        """A line of the log that is also shown."""
        self.lines.append(escaped(text))

    def name_of(self, path: Path) -> str | None:
        """The name by which the host finds a file that was written; None where it finds none."""
        return path.name

    # -- the trainer's side

    def on_stage(self, name: str, detail: str = "") -> None:
        self._stage_began = time.monotonic()
        self.say(f"{name}: {detail}" if detail else name)
        self.send({"event": "stage", "stage": name, "detail": escaped(detail)})

    def on_data(self, lines: list[str]) -> None:
        for line in lines:
            self.say(line)

    def on_progress(self, name: str, done: int, total: int) -> None:
        if done < total and time.monotonic() - self._sent < 1 / EVENTS_A_SECOND:
            return
        self._sent = time.monotonic()
        self.progress(done, total)
        left = (self._sent - self._stage_began) * (total - done) / done if done else None
        self.send({"event": "progress", "stage": name, "done": done, "total": total, "seconds_left": left})

    def on_step(self, report: StepReport) -> None:
        every = max(1, report.steps // LINES)
        if report.step % every == 0 or report.step in (1, report.steps):
            self.lines.append(
                f"step {report.step}/{report.steps}: loss {report.smoothed_loss:.4f}, density {100 * report.density:.1f} % "
                f"(aim {100 * report.target_density:.1f} %), {report.dead_atoms} dead atoms"
            )
        last = report.step == report.steps
        if not last and time.monotonic() - self._sent < 1 / EVENTS_A_SECOND:
            return
        self._sent = time.monotonic()
        self.progress(report.step, report.steps)
        self.send(
            {
                "event": "step", "step": report.step, "steps": report.steps, "loss": report.loss, "smoothed_loss": report.smoothed_loss,
                "density": report.density, "target_density": report.target_density, "dead_atoms": report.dead_atoms,
                "learning_rate": report.learning_rate, "seconds_left": report.seconds_left,
            }
        )  # fmt: skip

    def on_preview(self, step: int, prompts: list[str], images: Tensor, base_images: Tensor) -> None:
        from ..trainer.previews import sheet

        # Not as the host's own preview, which it may show a second time and forgets at the end of the run.
        self.send({"event": "preview", "step": step, "prompts": list(prompts), "number": self.state.note_preview(sheet(images, base_images))})

    def on_checkpoint(self, step: int, path: Path) -> None:
        self.lines.append(escaped(f"step {step}: checkpoint {path}"))
        self.send({"event": "checkpoint", "step": step, "path": str(path)})

    def on_warning(self, text: str) -> None:
        self.lines.append(escaped(f"note: {text}"))
        self.send({"event": "warning", "text": escaped(text)})

    def should_stop(self) -> bool:
        return self.state.keep_asked()

    # -- the end

    def finished(self, path: Path, stopped: int | None, steps: int) -> None:
        """The adapter is written; after `stopped` of `steps` where the run was stopped before its end."""
        self.send({"event": "finished", "path": str(path), "file": self.name_of(path), "stopped": stopped, "steps": steps})

    def ended(self, text: str) -> None:
        """The run was stopped before there was anything to write; `text` says so."""
        self.say(text)
        self.send({"event": "ended", "text": escaped(text)})

    def over(self) -> None:
        """The run ends, well or with an error."""
        self.state.end()
