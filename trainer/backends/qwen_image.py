"""Qwen-Image. Captions are cut or filled up to one length, so that rows of any captions go together; a mask tells what is filling."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Conditioning
from .diffusers_common import filled_up
from .flux import pack, unpack
from .video_codec import VideoCodecBackend


class QwenImageBackend(VideoCodecBackend):
    """Conditioning: `context` (B, tokens, d), `mask` (B, tokens) with 1 where there is text."""

    most_tokens = 256
    pipeline_class = "QwenImagePipeline"
    component = "transformer"
    gives_sigmas = True
    default_size = 1024
    default_steps = 50
    default_guidance = 4.0

    @torch.no_grad()
    def encode_text(self, captions: list[str]) -> Conditioning:
        context, mask = self.pipeline.encode_prompt(captions, device=self.text_device)
        if mask is None:
            mask = torch.ones(context.shape[:2], device=context.device)
        return {"context": filled_up(context, self.text_length).to(self.dtype), "mask": filled_up(mask, self.text_length).to(self.dtype)}

    def blank_conditioning(self, rows: int) -> Conditioning:
        context = torch.zeros(rows, self.text_length, self.denoiser.config.joint_attention_dim, dtype=self.dtype)
        return {"context": context, "mask": torch.ones(rows, self.text_length, dtype=self.dtype)}

    def guided(self, conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
        """As long as the conditional prediction of each token, as its pipeline does it."""
        height, width = conditional.shape[-2:]
        conditional, unconditional = pack(conditional), pack(unconditional)
        both = unconditional + guidance * (conditional - unconditional)
        return unpack(both * (conditional.norm(dim=-1, keepdim=True) / both.norm(dim=-1, keepdim=True)), height, width)

    def predict(self, noisy: Tensor, levels: Tensor, conditioning: Conditioning) -> Tensor:
        context, mask = conditioning["context"].to(self.device, self.dtype), conditioning["mask"].to(self.device).bool()
        height, width = noisy.shape[-2:]
        flow = self.denoiser(
            hidden_states=pack(noisy.to(self.device, self.dtype)), encoder_hidden_states=context, encoder_hidden_states_mask=mask,
            timestep=levels.to(self.device, self.dtype), img_shapes=[[(1, height // 2, width // 2)]] * len(noisy),
        ).sample  # fmt: skip
        return unpack(flow, height, width).to(noisy.dtype)
