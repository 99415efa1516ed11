"""Training on the loaded checkpoint, as the web UI's one job: it holds the host's queue, so that pictures wait until it is over."""

from __future__ import annotations

import os
import threading
import traceback
from pathlib import Path
from typing import Any

from torch import Tensor

from ..host_shared.file_names import target
from ..host_shared.run_events import RunEvents
from ..host_shared.run_settings import config_of, decided, file_of_run
from ..host_shared.run_state import RunState
from ..sparsedict_core.errors import SparseDictError, TrainingError, first_line
from ..sparsedict_core.shown_text import shown
from . import files
from .network import APPLIED

STATE = RunState()
_one = threading.Lock()
_run: threading.Thread | None = None


class WebuiEvents(RunEvents):
    """The host's own interrupt button ends a run too; the newest preview's first picture becomes the card's."""

    _picture: Any = None

    def on_preview(self, step: int, prompts: list[str], images: Tensor, base_images: Tensor) -> None:
        from ..pictures import to_image

        super().on_preview(step, prompts, images, base_images)
        self._picture = to_image(images[0])

    def finished(self, path: Path, stopped: int | None, steps: int) -> None:
        from ..pictures import save_image

        if self._picture is not None:
            try:
                save_image(self._picture, path.with_name(f"{path.stem}.preview.png"))
            except (SparseDictError, OSError) as error:
                self.on_warning(f"the card's picture could not be written: {error}")
        super().finished(path, stopped, steps)

    def should_stop(self) -> bool:
        from modules import shared

        return super().should_stop() or bool(shared.state.interrupted)


def whole(name: str, value: Any) -> int:
    """A field's number. Raises TrainingError for an empty field and for what is no number."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TrainingError(f"{name} is {value!r:.100}; give a whole number.") from error


def start(images: str, name: str, word: str, caption: str, preset: str, effort: str, steps: int, resolution: int, seed: int, previews: str, resume: bool, **chosen: Any) -> str:
    """Begin a run in the background; what is said to the user. 0 steps or pixels: by the effort and the model. `chosen` are more of the
    trainer's settings. Raises TrainingError where a run is going on, and SparseDictError for what cannot be trained on."""
    global _run
    with _one:
        if _run is not None and _run.is_alive():
            raise TrainingError("a training is going on already; wait for its end, or stop it.")
        if not images.strip() or not os.path.isdir(images.strip()):  # of a name that is too long too
            raise TrainingError(f"{images!r:.200} is no folder on this machine; give the folder of the training pictures.")
        out = file_of_run(target(files.default_folder(), name), resume)
        out.parent.mkdir(parents=True, exist_ok=True)
        values = {
            **decided(effort, out, word, whole("seed", seed), files.default_folder().parent / "SparseDict.cache"),
            "images": images.strip(), "caption": caption.strip() or None, "resume": bool(resume),
            "preview_prompts": [line.strip() for line in previews.splitlines() if line.strip()] or None,
            "steps": whole("steps", steps) or None, "resolution": whole("resolution", resolution) or None, **chosen,
        }  # fmt: skip
        given = {key: value for key, value in values.items() if value is not None}
        STATE.begin()
        _run = threading.Thread(target=_train, args=(preset, given, set(chosen)), name="SparseDict training")
        _run.start()
    return f"{shown(out.name)} is being trained; pictures wait until it is over."


def stop() -> str:
    """End the run and keep what it has learned."""
    if not STATE.ask_to_keep():
        return "no training is going on."
    return "stopping; what was learned so far is kept."


def wait(seconds: float | None = None) -> None:
    """Until the run is over."""
    if _run is not None:
        _run.join(seconds)


def _train(preset: str, given: dict[str, Any], asked: set[str]) -> None:
    from modules import shared
    from modules.call_queue import queue_lock

    events = WebuiEvents(STATE)
    with queue_lock:
        shared.state.begin(job="SparseDict training")
        try:
            from ..trainer.backends.webui import WebuiBackend
            from ..trainer.loop import train

            APPLIED.clear()
            backend = WebuiBackend(shared.sd_model)
            with backend.session():
                config = config_of(preset, given, asked, backend, backend.parameter_count())
                result = train(config, backend, callbacks=events)
            events.finished(result.path, result.steps if result.checkpoint is not None else None, config.steps)
        except SparseDictError as error:
            events.ended(str(error))
        except Exception as error:
            traceback.print_exc()
            events.ended(first_line(error))
        finally:
            shared.state.end()
            events.over()
