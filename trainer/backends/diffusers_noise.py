"""The two ways in which diffusers pipelines add noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...sparsedict_core.errors import SparseDictError
from .base import Conditioning
from .diffusers_common import DiffusersBackend
from .flow import StraightFlow, shifted


class DiscreteBackend(DiffusersBackend):
    """Noise by the schedule's ᾱ: x_t = √ᾱ·x0 + √(1−ᾱ)·noise at integer timesteps; predicts the noise, or v."""

    def __init__(self, pipeline: Any, device: str | torch.device, dtype: torch.dtype) -> None:
        from diffusers import DDPMScheduler

        super().__init__(pipeline, device, dtype)
        kind = self.scheduler_config.get("prediction_type", "epsilon")
        predictions = {"epsilon": "epsilon", "v_prediction": "v"}
        if kind not in predictions:
            raise SparseDictError(
                f"the scheduler's prediction_type {kind!r} is not supported in {type(self).__name__}; use a model that predicts epsilon or v_prediction."
            )
        self.prediction = predictions[kind]
        self.alphas = DDPMScheduler.from_config(self.scheduler_config).alphas_cumprod.to(self.device, torch.float32)
        # Below the deepest resolution a side would no longer halve evenly.
        self.size_multiple = self.latent_scale * 2 ** (len(self.denoiser.config.block_out_channels) - 1)
        self.default_size = self.latent_scale * self.denoiser.config.sample_size

    def sample_noise_levels(self, n: int, generator: torch.Generator | None, latent_size: tuple[int, int]) -> Tensor:
        """(n,) integer timesteps, uniform."""
        source = generator.device if generator is not None else self.device
        return torch.randint(len(self.alphas), (n,), generator=generator, device=source).to(self.device)

    def levels_at(self, times: Tensor, latent_size: tuple[int, int], shift: float | None = None) -> Tensor:
        return (shifted(times.to(self.device), 1.0 if shift is None else shift) * len(self.alphas)).long()

    def _signal_and_noise(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ and √(1−ᾱ), each (B, 1, 1, 1)."""
        alphas = self.alphas[levels.to(self.device).long()].view(-1, 1, 1, 1)
        return alphas.sqrt(), (1 - alphas).sqrt()

    def add_noise(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        signal, sigma = self._signal_and_noise(levels)
        return (signal * latents + sigma * noise).to(latents.dtype)

    def target(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """The noise, or v = √ᾱ·noise − √(1−ᾱ)·x0; (B, c, h, w) in fp32."""
        if self.prediction == "epsilon":
            return noise.float()
        signal, sigma = self._signal_and_noise(levels)
        return signal * noise - sigma * latents

    def snr(self, levels: Tensor) -> Tensor:
        """ᾱ / (1 − ᾱ), (n,)."""
        alphas = self.alphas[levels.to(self.device).long()]
        return alphas / (1 - alphas)

    def levels_of(self, timestep: Tensor, count: int) -> Tensor:
        # Not rounded: some schedulers run between the integer timesteps, and the UNet takes those.
        return timestep.to(self.device).expand(count)


class FlowBackend(StraightFlow, DiffusersBackend):
    """Rectified flow, with the levels that the scheduler has at a size of pictures."""

    prediction = "flow"
    patch: int = 2
    embeds_guidance: bool = False  # conditioning then has `guidance` (B,), 1 in training
    gives_sigmas = False  # whether its pipeline gives the scheduler the steps, unshifted

    def __init__(self, pipeline: Any, device: str | torch.device, dtype: torch.dtype) -> None:
        super().__init__(pipeline, device, dtype)
        self.size_multiple = self.latent_scale * self.patch

    def sample_noise_levels(self, n: int, generator: torch.Generator | None, latent_size: tuple[int, int]) -> Tensor:
        """(n,) in (0, 1): logit-normal, then shifted as the scheduler shifts its steps at this latent size."""
        source = generator.device if generator is not None else self.device
        return self.levels_at(torch.randn(n, generator=generator, device=source).to(self.device, torch.float32).sigmoid(), latent_size)

    def levels_at(self, times: Tensor, latent_size: tuple[int, int], shift: float | None = None) -> Tensor:
        return shifted(times.to(self.device), self._shift(latent_size) if shift is None else shift)

    def _shift(self, latent_size: tuple[int, int]) -> float:
        config = self.scheduler_config
        if not config.get("use_dynamic_shifting"):
            return config.get("shift") or config.get("flow_shift") or 1.0
        mu = self._mu(latent_size, self.default_steps)
        # Both of the scheduler's forms are t·s/(1 + (s − 1)·t); they differ in what s is.
        return mu if config.get("time_shift_type", "exponential") == "linear" else math.exp(mu)

    def _mu(self, latent_size: tuple[int, int], steps: int) -> float:
        """Linear in the number of tokens, as diffusers' pipelines compute it."""
        height, width = latent_size
        config = self.scheduler_config
        tokens = (height // self.patch) * (width // self.patch)
        few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        return low + (high - low) * (tokens - few) / (many - few)

    def timestep_options(self, steps: int, latent_size: tuple[int, int]) -> dict[str, Any]:
        config = self.scheduler_config
        options: dict[str, Any] = {"mu": self._mu(latent_size, steps)} if config.get("use_dynamic_shifting") else {}
        if self.gives_sigmas and not config.get("use_flow_sigmas"):  # a scheduler that makes flow steps of its own takes none
            options["sigmas"] = np.linspace(1.0, 1 / steps, steps)
        return options

    def apply_guidance(self, conditioning: Conditioning, guidance: float) -> tuple[Conditioning, float]:
        if not self.embeds_guidance:
            return conditioning, guidance
        return {**conditioning, "guidance": torch.full_like(conditioning["guidance"], guidance)}, 1.0

    def levels_of(self, timestep: Tensor, count: int) -> Tensor:
        return (timestep.to(self.device, torch.float32) / self.scheduler_config.num_train_timesteps).expand(count)
