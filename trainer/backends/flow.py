"""Rectified flow, the straight way between a picture and noise: x_t = (1 − t)·x0 + t·noise, of which noise − x0 is predicted."""

from __future__ import annotations

import torch
from torch import Tensor


class StraightFlow:
    """The part of a backend that a flow decides. Levels are t in (0, 1), drawn from a logit-normal distribution (as SD3 was trained)."""

    def sample_noise_levels(self, n: int, generator: torch.Generator, latent_size: tuple[int, int]) -> Tensor:
        return torch.sigmoid(torch.randn(n, generator=generator))

    def add_noise(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        t = levels.view(-1, 1, 1, 1).to(latents)
        return (1 - t) * latents + t * noise

    def target(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        return noise - latents

    def snr(self, levels: Tensor) -> Tensor:
        return ((1 - levels) / levels).square()
