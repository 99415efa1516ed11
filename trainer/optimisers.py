"""Optimisers by name, from torch.optim."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from .config import TrainConfig

_CLASSES = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD", "nadam": "NAdam", "radam": "RAdam", "rmsprop": "RMSprop", "adafactor": "Adafactor"}


def make_optimiser(config: TrainConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The config's optimiser."""
    name = config.optimizer
    options: dict[str, Any] = {"lr": config.rate, "weight_decay": config.weight_decay}
    if name in ("adam", "adamw", "nadam", "radam"):
        options["betas"] = config.betas
    if name == "sgd":
        options["momentum"] = config.betas[0]
    return getattr(torch.optim, _CLASSES[name])(list(parameters), **options)
