"""Chroma: Flux without the pooled text and the embedded guidance, with a mask on the text."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Conditioning
from .diffusers_noise import FlowBackend
from .flux import image_ids, pack, unpack


class ChromaBackend(FlowBackend):
    """Conditioning: `context` (B, T5 tokens, d), `mask` (B, T5 tokens) with 1 for the text and the first token of filling."""

    most_tokens = 512
    pipeline_class = "ChromaPipeline"
    component = "transformer"
    gives_sigmas = True
    default_size = 1024
    default_steps = 35
    default_guidance = 5.0

    @torch.no_grad()
    def encode_text(self, captions: list[str]) -> Conditioning:
        context, _, mask, *_ = self.pipeline.encode_prompt(
            captions, device=self.text_device, do_classifier_free_guidance=False, max_sequence_length=self.text_length
        )
        return {"context": context.to(self.dtype), "mask": mask.to(self.dtype)}

    def blank_conditioning(self, rows: int) -> Conditioning:
        context = torch.zeros(rows, self.text_length, self.denoiser.config.joint_attention_dim, dtype=self.dtype)
        return {"context": context, "mask": torch.ones(rows, self.text_length, dtype=self.dtype)}

    def predict(self, noisy: Tensor, levels: Tensor, conditioning: Conditioning) -> Tensor:
        context, mask = (conditioning[key].to(self.device, self.dtype) for key in ("context", "mask"))
        height, width = noisy.shape[-2:]
        tokens = pack(noisy.to(self.device, self.dtype))
        flow = self.denoiser(
            hidden_states=tokens, encoder_hidden_states=context, timestep=levels.to(self.device, self.dtype),
            img_ids=image_ids(height // 2, width // 2).to(self.device), txt_ids=torch.zeros(context.shape[1], 3, device=self.device),
            attention_mask=torch.cat([mask, mask.new_ones(tokens.shape[:2])], dim=1),
        ).sample  # fmt: skip
        return unpack(flow, height, width).to(noisy.dtype)
