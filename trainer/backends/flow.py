"""Rectified flow, the straight way between a picture and noise: x_t = (1 − t)·x0 + t·noise, of which noise − x0 is predicted."""

from __future__ import annotations

import torch
from torch import Tensor


def shifted(times: Tensor, shift: float) -> Tensor:
    """Times (n,) in [0, 1], moved towards noise by a shift above 1; the ends stay, and are kept out: there the SNR is 0 or infinite."""
    return (shift * times / (1 + (shift - 1) * times)).clamp(1e-4, 1 - 1e-4)


class StraightFlow:
    """The part of a backend that a flow decides. Levels are t in (0, 1), drawn from a logit-normal distribution (as SD3 was trained)."""

    def sample_noise_levels(self, n: int, generator: torch.Generator | None, latent_size: tuple[int, int]) -> Tensor:
        return torch.sigmoid(torch.randn(n, generator=generator))

    def levels_at(self, times: Tensor, latent_size: tuple[int, int], shift: float | None = None) -> Tensor:
        return shifted(times, 1.0 if shift is None else shift)

    def add_noise(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        t = levels.to(latents.device, torch.float32).view(-1, 1, 1, 1)
        return ((1 - t) * latents + t * noise).to(latents.dtype)

    def target(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        return noise.float() - latents.float()

    def snr(self, levels: Tensor) -> Tensor:
        t = levels.float()
        return ((1 - t) / t).square()
