"""Images and captions in, an adapter out. Knows `sparsedict_core`, and a model only through `backends.base.Backend`.

Names are looked up when they are used: a program can ask for the settings, for its help, without PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .callbacks import Callbacks, StepReport
    from .config import TrainConfig
    from .data import ConceptData
    from .loop import train
    from .presets import PRESETS
    from .result import TrainResult

__all__ = ["PRESETS", "Callbacks", "ConceptData", "StepReport", "TrainConfig", "TrainResult", "train"]

_HOMES = {
    "PRESETS": "presets", "Callbacks": "callbacks", "ConceptData": "data", "StepReport": "callbacks", "TrainConfig": "config",
    "TrainResult": "result", "train": "loop",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
