"""Validation previews: the same noise each time, beside the base's pictures of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..sparsedict_core.attachment import Attachment
from .backends.base import Backend, StepCallback
from .callbacks import Interrupted
from .config import TrainConfig


class Previews:
    """Holds the fixed noise and the base's pictures, made at the first preview."""

    def __init__(self, config: TrainConfig, backend: Backend, size: tuple[int, int]) -> None:
        self.prompts = list(config.preview_prompts)
        self.backend, self.at_once = backend, config.rows
        generator = torch.Generator().manual_seed(config.seed + 31)
        self.noise = torch.randn(max(1, len(self.prompts)), backend.latent_channels, *size, generator=generator)
        self.base: Tensor | None = None

    @torch.no_grad()
    def make(self, attachment: Attachment, should_stop: Callable[[], bool] = lambda: False) -> tuple[Tensor, Tensor]:
        """(images, base images), each (prompts, 3, H, W) in [-1, 1] on the CPU. Raises Interrupted when told to stop."""

        def ask(step: int, steps: int) -> None:
            if should_stop():
                raise Interrupted

        if self.base is None:
            attachment.enabled = False
            try:
                self.base = self._sample(ask)
            finally:
                attachment.enabled = True
        return self._sample(ask), self.base

    def _sample(self, callback: StepCallback) -> Tensor:
        noise, pictures = self.noise.to(self.backend.device, self.backend.dtype), []
        for first in range(0, len(self.prompts), self.at_once):
            rows = slice(first, first + self.at_once)
            latents = self.backend.sample(self.prompts[rows], noise[rows], callback=callback)
            # One by one: a decoder of large pictures needs more for each than the denoiser does.
            pictures += [self.backend.decode(latent[None]).float().cpu() for latent in latents]
        return torch.cat(pictures)
