"""Lumina Image 2."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Conditioning
from .diffusers_noise import FlowBackend


class Lumina2Backend(FlowBackend):
    """Conditioning: `context` (B, tokens, d), `mask` (B, tokens) with 1 where there is text."""

    pipeline_class = "Lumina2Pipeline"
    component = "transformer"
    gives_sigmas = True
    default_size = 1024
    default_steps = 30
    default_guidance = 4.0
    text_length = 256

    @torch.no_grad()
    def encode_text(self, captions: list[str]) -> Conditioning:
        # The empty caption is what guidance leads away from, and gets no instructions.
        texts = [self.pipeline.system_prompt + " <Prompt Start> " + caption if caption else "" for caption in captions]
        context, mask = self.pipeline._get_gemma_prompt_embeds(texts, device=self.text_device, max_sequence_length=self.text_length)
        return {"context": context.to(self.dtype), "mask": mask}

    def blank_conditioning(self, rows: int) -> Conditioning:
        context = torch.zeros(rows, self.text_length, self.denoiser.config.cap_feat_dim, dtype=self.dtype)
        return {"context": context, "mask": torch.ones(rows, self.text_length, dtype=torch.long)}

    def guided(self, conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
        """As long as the conditional prediction, row by row of the picture: its pipeline's own rule."""
        both = super().guided(conditional, unconditional, guidance)
        return both * (conditional.norm(dim=-1, keepdim=True) / both.norm(dim=-1, keepdim=True))

    def predict(self, noisy: Tensor, levels: Tensor, conditioning: Conditioning) -> Tensor:
        context, mask = conditioning["context"].to(self.device, self.dtype), conditioning["mask"].to(self.device)
        # It counts time from noise to picture, and predicts the other direction.
        flow = self.denoiser(
            hidden_states=noisy.to(self.device, self.dtype), timestep=1 - levels.to(self.device), encoder_hidden_states=context,
            encoder_attention_mask=mask,
        ).sample  # fmt: skip
        return -flow.to(noisy.dtype)
