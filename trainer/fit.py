"""A run's rows at once and recomputed blocks, where nobody has chosen them: what the policy says of this model on this device."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

from .backends.base import Backend
from .checkpoint import begun_with
from .config import TrainConfig
from .policy import free_memory, known, settle, weight_bytes, weights_of

SETTINGS = ("batch_size", "gradient_accumulation", "gradient_checkpointing")


def fitted(config: TrainConfig, backend: Backend, asked: Collection[str], parameters: int, processes: int = 1) -> TrainConfig:
    """`config` with SETTINGS as the model and the device's memory allow; what was `asked` for stays. `parameters` are the denoiser's.

    A run that goes on keeps those that it began with: other programs may have left it more memory then. Raises CheckpointError.
    """
    before = begun_with(Path(config.out)) if config.resume else {}
    given = {**before, **{name: getattr(config, name) for name in asked}}
    side, weights = config.resolution or backend.default_size, weights_of(backend)
    memory: float | None = None
    if getattr(backend, "in_step", False):  # the other processes hold the rest of the base
        elsewhere = 1 - 1 / processes
        memory = free_memory(backend.device) + elsewhere * weight_bytes(known(backend.family, parameters, side), weights)
    chosen = settle(given, backend.family, parameters, backend.device, side, weights, processes, memory)
    return dataclasses.replace(config, **{name: chosen[name] for name in SETTINGS})
