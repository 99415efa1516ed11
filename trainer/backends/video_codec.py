"""The VAEs of video models, which see a picture as a film of one frame and give latents with a mean and a deviation for each channel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .diffusers_noise import FlowBackend


class VideoCodecBackend(FlowBackend):
    """Rectified flow over latents of one frame, kept as (B, c, h, w)."""

    @classmethod
    def codec_shape(cls, vae: Any) -> tuple[int, int]:
        return vae.config.z_dim, 2 ** len(vae.config.temperal_downsample)

    def to_latents(self, images: Tensor) -> Tensor:
        latents = self.vae.encode(images.unsqueeze(2)).latent_dist.mode()
        mean, deviation = self._statistics(latents)
        return ((latents - mean) / deviation)[:, :, 0]

    def to_images(self, latents: Tensor) -> Tensor:
        mean, deviation = self._statistics(latents)
        return self.vae.decode(latents.unsqueeze(2) * deviation + mean).sample[:, :, 0]

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        config = self.vae.config
        mean, deviation = (torch.tensor(values, device=like.device, dtype=like.dtype).view(1, -1, 1, 1, 1) for values in (config.latents_mean, config.latents_std))
        return mean, deviation
