"""Which noise levels a step trains: as the family was trained itself, or as a run asks for."""

from __future__ import annotations

import torch
from torch import Tensor

from .backends.base import Backend
from .config import TrainConfig


def draw_levels(config: TrainConfig, backend: Backend, n: int, generator: torch.Generator, latent_size: tuple[int, int]) -> Tensor:
    """(n,) in the family's own unit, drawn on the CPU."""
    if config.timestep_sampling == "family" and config.timestep_shift is None:
        return backend.sample_noise_levels(n, generator, latent_size)
    sampling = config.timestep_sampling
    if sampling == "family":
        sampling = "logit-normal" if backend.prediction == "flow" else "uniform"
    times = torch.rand(n, generator=generator) if sampling == "uniform" else torch.randn(n, generator=generator).sigmoid()
    return backend.levels_at(times, latent_size, config.timestep_shift)
