"""Stable Diffusion 1.x, and 2.x, which differs in the width of its text only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .base import Conditioning
from .diffusers_common import CLIP_TOKENS
from .diffusers_noise import DiscreteBackend


class SD15Backend(DiscreteBackend):
    """Conditioning: `context` (B, 77, d)."""

    pipeline_class = "StableDiffusionPipeline"
    component = "unet"
    default_guidance = 7.0

    @classmethod
    def load_options(cls, path: Path) -> dict[str, Any]:
        return {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}

    @torch.no_grad()
    def encode_text(self, captions: list[str]) -> Conditioning:
        context, _ = self.pipeline.encode_prompt(captions, self.text_device, 1, do_classifier_free_guidance=False)
        return {"context": context.to(self.dtype)}

    def blank_conditioning(self, rows: int) -> Conditioning:
        return {"context": torch.zeros(rows, CLIP_TOKENS, self.denoiser.config.cross_attention_dim, dtype=self.dtype)}

    def predict(self, noisy: Tensor, levels: Tensor, conditioning: Conditioning) -> Tensor:
        context = conditioning["context"].to(self.device, self.dtype)
        return self.denoiser(noisy.to(self.device, self.dtype), levels.to(self.device), context).sample.to(noisy.dtype)
