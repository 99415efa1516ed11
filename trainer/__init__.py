"""Images and captions in, an adapter out. Knows `sparsedict_core`, and a model only through `backends.base.Backend`."""

from .callbacks import Callbacks, StepReport
from .config import TrainConfig
from .data import ConceptData
from .loop import train
from .presets import PRESETS
from .result import TrainResult

__all__ = ["PRESETS", "Callbacks", "ConceptData", "StepReport", "TrainConfig", "TrainResult", "train"]
