"""Stable Diffusion XL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .base import Conditioning
from .diffusers_common import CLIP_TOKENS
from .diffusers_noise import DiscreteBackend


class SDXLBackend(DiscreteBackend):
    """Conditioning: `context` (B, 77, d), `pooled` (B, p); optional `time_ids` (B, 6), else told by the latents' size."""

    pipeline_class = "StableDiffusionXLPipeline"
    component = "unet"
    default_guidance = 5.0

    @classmethod
    def load_options(cls, path: Path) -> dict[str, Any]:
        return {"add_watermarker": False}

    @torch.no_grad()
    def encode_text(self, captions: list[str]) -> Conditioning:
        context, _, pooled, _ = self.pipeline.encode_prompt(captions, device=self.text_device, do_classifier_free_guidance=False)
        return {"context": context.to(self.dtype), "pooled": pooled.to(self.dtype)}

    def unconditional(self, count: int) -> Conditioning:
        empty = super().unconditional(count)
        # The base was trained with zeros, not with the empty caption; its folder says so.
        return {key: torch.zeros_like(value) for key, value in empty.items()} if self.pipeline.config.force_zeros_for_empty_prompt else empty

    def blank_conditioning(self, rows: int) -> Conditioning:
        config = self.denoiser.config
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        shapes = {"context": (rows, CLIP_TOKENS, config.cross_attention_dim), "pooled": (rows, pooled)}
        return {name: torch.zeros(shape, dtype=self.dtype) for name, shape in shapes.items()}

    def predict(self, noisy: Tensor, levels: Tensor, conditioning: Conditioning) -> Tensor:
        context, pooled = (conditioning[key].to(self.device, self.dtype) for key in ("context", "pooled"))
        time_ids = conditioning.get("time_ids")
        if time_ids is None:
            height, width = (side * self.latent_scale for side in noisy.shape[-2:])
            # Original size, crop corner, target size: a whole picture, seen at its own size.
            time_ids = torch.tensor([[height, width, 0, 0, height, width]]).expand(len(noisy), -1)
        added = {"text_embeds": pooled, "time_ids": time_ids.to(self.device, self.dtype)}
        noisy_here = noisy.to(self.device, self.dtype)
        return self.denoiser(noisy_here, levels.to(self.device), context, added_cond_kwargs=added).sample.to(noisy.dtype)
