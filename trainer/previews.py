"""Validation previews: the same noise each time, beside the base's pictures of it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..sparsedict_core.attachment import Attachment
from .backends.base import Backend
from .config import TrainConfig


class Previews:
    """Holds the fixed noise and the base's pictures, made at the first preview."""

    def __init__(self, config: TrainConfig, backend: Backend, size: tuple[int, int]) -> None:
        self.prompts = list(config.preview_prompts)
        self.backend = backend
        generator = torch.Generator().manual_seed(config.seed + 31)
        self.noise = torch.randn(max(1, len(self.prompts)), backend.latent_channels, *size, generator=generator)
        self.base: Tensor | None = None

    @torch.no_grad()
    def make(self, attachment: Attachment) -> tuple[Tensor, Tensor]:
        """(images, base images), each (prompts, 3, H, W) in [-1, 1] on the CPU."""
        if self.base is None:
            attachment.enabled = False
            try:
                self.base = self._sample()
            finally:
                attachment.enabled = True
        return self._sample(), self.base

    def _sample(self) -> Tensor:
        noise = self.noise.to(self.backend.device, self.backend.dtype)
        return self.backend.decode(self.backend.sample(self.prompts, noise)).float().cpu()
