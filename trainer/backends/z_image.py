"""Z-Image, the distilled Turbo (guidance 1, 9 steps) and the base."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .base import Conditioning
from .diffusers_common import filled_up
from .diffusers_noise import FlowBackend

#: The scheduler's shift of the base, which is sampled with guidance; Turbo's is 3.
BASE_SHIFT = 6.0


class ZImageBackend(FlowBackend):
    """Conditioning: `context` (B, tokens, d), `length` (B,) of each caption's own tokens."""

    most_tokens = 256
    pipeline_class = "ZImagePipeline"
    component = "transformer"
    gives_sigmas = True
    default_size = 1024

    def __init__(self, pipeline: Any, device: str | torch.device, dtype: torch.dtype) -> None:
        super().__init__(pipeline, device, dtype)
        turbo = (self.scheduler_config.get("shift") or 1.0) < BASE_SHIFT
        # Its pipeline counts guidance from 0: there 4 is what is 5 here.
        self.default_steps, self.default_guidance = (9, 1.0) if turbo else (50, 5.0)

    @torch.no_grad()
    def encode_text(self, captions: list[str]) -> Conditioning:
        texts, _ = self.pipeline.encode_prompt(list(captions), device=self.text_device, do_classifier_free_guidance=False, max_sequence_length=self.text_length)
        lengths = torch.tensor([len(text) for text in texts])
        return {"context": torch.cat([filled_up(text[None], self.text_length) for text in texts]).to(self.dtype), "length": lengths}

    def blank_conditioning(self, rows: int) -> Conditioning:
        context = torch.zeros(rows, self.text_length, self.denoiser.config.cap_feat_dim, dtype=self.dtype)
        return {"context": context, "length": torch.full((rows,), self.text_length)}

    def predict(self, noisy: Tensor, levels: Tensor, conditioning: Conditioning) -> Tensor:
        context, lengths = conditioning["context"].to(self.device, self.dtype), conditioning["length"].tolist()
        pictures = list(noisy.to(self.device, self.dtype).unsqueeze(2).unbind())
        texts = [row[:length] for row, length in zip(context, lengths, strict=True)]
        # It counts time from noise to picture, and predicts the other direction.
        flows = self.denoiser(pictures, (1 - levels.to(self.device, torch.float32)).to(self.dtype), texts).sample
        return -torch.stack(list(flows)).squeeze(2).to(noisy.dtype)
