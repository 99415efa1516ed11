"""Images and captions in, an adapter out. Knows `sparsedict_core`, and a model only through `backends.base.Backend`."""

from .callbacks import Callbacks, StepReport
from .config import TrainConfig
from .data import ConceptData
from .loop import TrainResult, train
from .presets import PRESETS

__all__ = ["PRESETS", "Callbacks", "ConceptData", "StepReport", "TrainConfig", "TrainResult", "train"]
