"""A training run as the host's front end sees it: progress, previews in the node, events, and the buttons that end it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
from torch import Tensor

from ..trainer.callbacks import Callbacks, StepReport
from .files import name_of
from .train_state import STATE

EVENT = "sparsedict.train"
EVENTS_A_SECOND = 10
LINES = 40  # of the log that tell of steps


class HostCallbacks(Callbacks):
    """`lines` is the log. `interrupted` stays set once the user has pressed the host's stop, as the host forgets it when it is told."""

    def __init__(self, node: str | None, pnginfo: Any = None) -> None:
        """`pnginfo` is what the host would write into pictures: it holds the workflow."""
        self.node, self.workflow = node, workflow_id(pnginfo)
        self.lines: list[str] = []
        self.interrupted = False
        self._bar = comfy.utils.ProgressBar(1, node_id=node)
        self._sent = 0.0
        self._prompt = getattr(_server(), "last_prompt_id", None)
        STATE.begin(node, self._prompt, self.workflow)

    # -- the trainer's side

    def on_stage(self, name: str, detail: str = "") -> None:
        self.say(f"{name}: {detail}" if detail else name)
        self._send({"event": "stage", "stage": name, "detail": detail})

    def on_data(self, lines: list[str]) -> None:
        for line in lines:
            self.say(line)

    def on_progress(self, name: str, done: int, total: int) -> None:
        if done < total and time.monotonic() - self._sent < 1 / EVENTS_A_SECOND:
            return
        self._sent = time.monotonic()
        self._progress(done, total)
        self._send({"event": "progress", "stage": name, "done": done, "total": total})

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
        self._progress(report.step, report.steps)
        self._send(
            {
                "event": "step", "step": report.step, "steps": report.steps, "loss": report.loss, "smoothed_loss": report.smoothed_loss,
                "density": report.density, "target_density": report.target_density, "dead_atoms": report.dead_atoms,
                "learning_rate": report.learning_rate, "seconds_left": report.seconds_left,
            }
        )  # fmt: skip

    def on_preview(self, step: int, prompts: list[str], images: Tensor, base_images: Tensor) -> None:
        # Not as the host's own preview: the node would show it twice, and the host forgets it at the end of the run.
        self._send({"event": "preview", "step": step, "prompts": list(prompts), "number": STATE.note_preview(sheet(images, base_images))})

    def on_checkpoint(self, step: int, path: Path) -> None:
        self.lines.append(f"step {step}: checkpoint {path}")
        self._send({"event": "checkpoint", "step": step, "path": str(path)})

    def on_warning(self, text: str) -> None:
        self.lines.append(f"note: {text}")
        self._send({"event": "warning", "text": text})

    def should_stop(self) -> bool:
        if comfy.model_management.processing_interrupted():
            self._note_interrupt()
        return self.interrupted or STATE.keep_asked()

    def kept(self) -> bool:
        """Whether it was the monitor's button alone that ended the run. An interrupt may also come as an exception of the host's in mid-step."""
        return STATE.keep_asked() and not self.interrupted

    def cancelled(self) -> bool:
        """Whether the host's own button was pressed at any time until now, also after the last step."""
        self.should_stop()
        return self.interrupted

    # -- the host's side

    def say(self, text: str) -> None:
        """A line of the log that is also shown in the node."""
        self.lines.append(text)
        server = _server()
        if server is not None and self.node is not None and hasattr(server, "send_progress_text"):
            server.send_progress_text(text, self.node)

    def asked_to_stop(self) -> bool:
        """Whether anyone has stopped the run, by the monitor's button or the host's own."""
        return self.interrupted or STATE.keep_asked()

    def finished(self, path: Path, stopped: int | None, steps: int) -> None:
        """The adapter is written; after `stopped` of `steps` where the run was stopped before its end."""
        name = name_of(path)
        self._send({"event": "finished", "path": str(path), "file": name, "stopped": stopped, "steps": steps})

    def ended(self, text: str) -> None:
        """The run was stopped before there was anything to write; `text` says so."""
        self.say(text)
        self._send({"event": "ended", "text": text})

    def over(self) -> None:
        """The node ends, well or with an error."""
        STATE.end()

    def _progress(self, done: int, total: int) -> None:
        try:
            self._bar.update_absolute(done, total)
        except comfy.model_management.InterruptProcessingException:
            # The host asks at each update; the run is ended by the loop, which writes a checkpoint.
            self._note_interrupt()

    def _note_interrupt(self) -> None:
        self.interrupted = True
        # Else every operation of the host would raise it, also those that bring the adapter to a file.
        comfy.model_management.interrupt_current_processing(False)

    def _send(self, data: dict[str, Any]) -> None:
        data = {"node": self.node, "prompt": self._prompt, "workflow": self.workflow, **data}
        STATE.note(data)
        server = _server()
        if server is not None:
            server.send_sync(EVENT, data, server.client_id)


def workflow_id(pnginfo: Any) -> str | None:
    """The id of the workflow that the prompt was made of: node numbers are the same in another one. None where it came from no front end."""
    workflow = pnginfo.get("workflow") if isinstance(pnginfo, dict) else None
    found = workflow.get("id") if isinstance(workflow, dict) else None
    return found if isinstance(found, str) else None


def _server() -> Any:
    """The host's server, or None where nodes run without one. Looked up, not imported: where it is not running already, it never will."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def single(image: Tensor) -> Any:
    """(3, H, W) in [-1, 1] → PIL."""
    from PIL import Image

    pixels = ((image.float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte()
    return Image.fromarray(pixels.movedim(0, -1).contiguous().numpy())


def sheet(images: Tensor, base_images: Tensor) -> Any:
    """(n, 3, H, W) twice, in [-1, 1] → PIL: pictures with the adapter above those of the base."""
    import torch

    return single(torch.cat([torch.cat(list(row.float().cpu()), dim=2) for row in (images, base_images)], dim=1))
