"""Noise in the host's own sigmas: how it is added, at which levels, and what the denoiser is to give, as its `model_sampling` says."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .flow import shifted


class HostNoise:
    """The part of a backend that the host's sampling decides."""

    model_sampling: Any
    prediction: str

    def sample_noise_levels(self, n: int, generator: torch.Generator, latent_size: tuple[int, int]) -> Tensor:
        """(n,) sigmas: a flow's are logit-normal, then shifted as its sampler shifts them; others are uniform over the schedule."""
        if self.prediction == "flow":
            return self.levels_at(torch.randn(n, generator=generator).sigmoid(), latent_size)
        table = self.model_sampling.sigmas.float().cpu()
        return table[torch.randint(len(table), (n,), generator=generator)].clone()

    def levels_at(self, times: Tensor, latent_size: tuple[int, int], shift: float | None = None) -> Tensor:
        if self.prediction == "flow" and shift is None:
            return self.flow_sigmas(times).clamp(1e-4, 1 - 1e-4)
        moved = shifted(times, 1.0 if shift is None else shift)
        if self.prediction == "flow":
            return moved
        table = self.model_sampling.sigmas.float().cpu()
        return table[(moved * len(table)).long()]

    def flow_sigmas(self, t: Tensor) -> Tensor:
        """Unshifted times (n,) in [0, 1] → the sigmas that the sampler takes there."""
        return self.model_sampling.sigma(t * getattr(self.model_sampling, "multiplier", 1.0)).float()

    def add_noise(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        return self.model_sampling.noise_scaling(column(levels, latents), noise.clone(), latents)

    def target(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        sigma = column(levels, latents)
        if self.prediction == "flow":
            return noise - latents
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "v":
            return (noise - sigma * latents) / (sigma.square() + 1).sqrt()
        return self.output_for(latents, self.add_noise(latents, noise, levels), levels)

    def output_for(self, clean: Tensor, noisy: Tensor, levels: Tensor) -> Tensor:
        """What the denoiser gives where the host then takes `clean` for the picture. Whatever it is, the picture is linear in it."""
        sigma = column(levels, noisy)
        offset = self.model_sampling.calculate_denoised(sigma, torch.zeros_like(noisy), noisy)
        slope = self.model_sampling.calculate_denoised(sigma, torch.ones_like(noisy), noisy) - offset
        return (clean - offset) / slope

    def snr(self, levels: Tensor) -> Tensor:
        sigma = levels.float()
        return ((1 - sigma) / sigma).square() if self.prediction == "flow" else sigma.square().reciprocal()


def column(levels: Tensor, like: Tensor) -> Tensor:
    return levels.to(like.device, torch.float32).view(-1, *[1] * (like.ndim - 1))
