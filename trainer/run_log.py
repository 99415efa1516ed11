"""What a run writes for TensorBoard, and for Weights & Biases by accelerate's tracker. A log that breaks off is no reason to end the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from ..sparsedict_core.errors import TrainingError, first_line


class RunLog:
    """Numbers by step, and previews, in none, one or both of them."""

    def __init__(self, tensorboard: str | Path | None, wandb: str | None, name: str, settings: dict[str, Any], warn: Callable[[str], None]) -> None:
        """`tensorboard`: a folder; `wandb`: a project, in which the run is called `name`. Raises TrainingError where that cannot begin."""
        self._warn = warn
        self._writer: Any = None
        self._tracker: Any = None
        if tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(tensorboard))
        if wandb is not None:
            self._tracker = wandb_tracker(wandb, name, settings)

    def numbers(self, values: dict[str, float], step: int) -> None:
        def write(writer: Any) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)

        self._tell(write, lambda tracker: tracker.log(values, step=step))

    def pictures(self, prompts: list[str], images: Tensor, step: int) -> None:
        """(n, 3, H, W) in [-1, 1]."""

        def track(tracker: Any) -> None:
            from ..pictures import to_images

            tracker.log_images({f"preview/{prompt}": [image] for prompt, image in zip(prompts, to_images(images), strict=True)}, step=step)

        self._tell(lambda writer: writer.add_images("preview", (images + 1) / 2, step), track)

    def close(self) -> None:
        self._tell(lambda writer: writer.close(), lambda tracker: tracker.finish())

    def _tell(self, write: Callable[[Any], None], track: Callable[[Any], None]) -> None:
        if self._writer is not None:
            try:
                write(self._writer)
            except OSError as error:
                self._writer = None
                self._warn(f"the TensorBoard log ends here: {error.strerror or error}.")
        if self._tracker is not None:
            try:
                track(self._tracker)
            except Exception as error:  # a service's client fails in ways of its own
                self._tracker = None
                self._warn(f"the log for Weights & Biases ends here: {first_line(error)}.")


def wandb_tracker(project: str, name: str, settings: dict[str, Any]) -> Any:
    from accelerate import PartialState
    from accelerate.tracking import WandBTracker
    from accelerate.utils import is_wandb_available

    if not is_wandb_available():
        raise TrainingError("wandb needs the package of that name, which is not installed; pip install wandb.")
    PartialState()  # without which the tracker cannot say what it does
    try:
        tracker = WandBTracker(project, name=name)
        tracker.start()
        tracker.store_init_configuration(settings)
    except Exception as error:
        raise TrainingError(f"Weights & Biases cannot begin ({first_line(error)}); run `wandb login`, set WANDB_MODE=offline, or leave wandb out.") from error
    return tracker
