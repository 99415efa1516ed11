"""A run in a notebook: its bars are the notebook's, and its previews are shown below the cell."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor

from .progress import ConsoleProgress


def in_notebook() -> bool:
    """Whether the program runs in a kernel that shows pictures. IPython is never imported for the question."""
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


class NotebookProgress(ConsoleProgress):
    """Each preview in the place of the one before: the base's pictures above the adapter's."""

    _shown: Any = None

    def on_preview(self, step: int, prompts: list[str], images: Tensor, base_images: Tensor) -> None:
        super().on_preview(step, prompts, images, base_images)
        from IPython.display import display

        from ..pictures import image_strip, to_images

        pictures, labels = [*to_images(base_images), *to_images(images)], [*("base" for _ in prompts), *prompts]
        sheet = image_strip(pictures, labels, columns=len(prompts))
        if self._shown is None:
            self._shown = display(sheet, display_id=True)
        else:
            self._shown.update(sheet)
