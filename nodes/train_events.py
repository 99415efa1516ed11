"""A training run as the host's front end sees it: progress, previews in the node, events, and the buttons that end it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils

from ..host_shared.run_events import RunEvents
from ..host_shared.run_state import RunState
from .files import name_of

EVENT = "sparsedict.train"
#: The host runs one prompt at a time.
STATE = RunState()


class HostCallbacks(RunEvents):
    """`lines` is the log. `interrupted` stays set once the user has pressed the host's stop, as the host forgets it when it is told."""

    def __init__(self, node: str | None, pnginfo: Any = None) -> None:
        """`pnginfo` is what the host would write into pictures: it holds the workflow."""
        super().__init__(STATE)
        self.interrupted = False
        self._bar = comfy.utils.ProgressBar(1, node_id=node)
        self._origin = {"node": node, "prompt": getattr(_server(), "last_prompt_id", None), "workflow": workflow_id(pnginfo)}
        STATE.begin(self._origin)

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

    def asked_to_stop(self) -> bool:
        """Whether anyone has stopped the run, by the monitor's button or the host's own."""
        return self.interrupted or STATE.keep_asked()

    # -- the host's side

    def say(self, text: str) -> None:
        """A line of the log that is also shown in the node."""
        super().say(text)
        server = _server()
        node = self._origin["node"]
        if server is not None and node is not None and hasattr(server, "send_progress_text"):
            server.send_progress_text(self.lines[-1], node, server.client_id)

    def name_of(self, path: Path) -> str | None:
        return name_of(path)

    def progress(self, done: int, total: int) -> None:
        try:
            self._bar.update_absolute(done, total)
        except comfy.model_management.InterruptProcessingException:
            # The host asks at each update; the run is ended by the loop, which writes a checkpoint.
            self._note_interrupt()

    def _note_interrupt(self) -> None:
        self.interrupted = True
        # Else every operation of the host would raise it, also those that bring the adapter to a file.
        comfy.model_management.interrupt_current_processing(False)

    def send(self, data: dict[str, Any]) -> None:
        data = {**self._origin, **data}
        super().send(data)
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
