"""Optimisers by name, from torch.optim, and Prodigy from its own package."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ..sparsedict_core.errors import TrainingError
from .config import TrainConfig

_CLASSES = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD", "nadam": "NAdam", "radam": "RAdam", "rmsprop": "RMSprop", "adafactor": "Adafactor"}


def make_optimiser(config: TrainConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The config's optimiser. Raises TrainingError where its package is missing."""
    name = config.optimizer
    options: dict[str, Any] = {"lr": config.rate, "weight_decay": config.weight_decay}
    if name == "prodigy":
        try:
            from prodigyopt import Prodigy
        except ImportError as error:
            raise TrainingError("optimizer prodigy needs the package prodigyopt, which is not installed; pip install prodigyopt.") from error
        # As its authors advise for diffusion models with a warm-up; and from a rate that reaches the usual one before the quiet term's weight
        # rises, as that term's gradient holds it back where a dictionary is still near zero.
        return Prodigy(list(parameters), **options, betas=config.betas, use_bias_correction=True, safeguard_warmup=True, d0=1e-4)
    if name in ("adam", "adamw", "nadam", "radam"):
        options["betas"] = config.betas
    if name == "sgd":
        options["momentum"] = config.betas[0]
    return getattr(torch.optim, _CLASSES[name])(list(parameters), **options)
