"""Optimisers by name, from torch.optim."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ..sparsedict_core.errors import TrainingError
from .config import TrainConfig

_NAMES = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD", "nadam": "NAdam", "radam": "RAdam", "rmsprop": "RMSprop", "adafactor": "Adafactor"}


def make_optimiser(config: TrainConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The config's optimiser. Raises TrainingError for an unknown name."""
    name = config.optimizer.lower()
    if name not in _NAMES:
        raise TrainingError(f"optimizer is {config.optimizer!r}; known are {', '.join(sorted(_NAMES))}.")
    kind = getattr(torch.optim, _NAMES[name])
    options: dict[str, Any] = {"lr": config.rate, "weight_decay": config.weight_decay}
    if name in ("adam", "adamw", "nadam", "radam"):
        options["betas"] = config.betas
    if name == "sgd":
        options["momentum"] = config.betas[0]
    return kind(list(parameters), **options)
