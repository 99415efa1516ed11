"""Flux.1, guidance-distilled (dev) or not (schnell, de-distilled models)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .base import Conditioning
from .diffusers_noise import FlowBackend


class FluxBackend(FlowBackend):
    """Conditioning: `context` (B, T5 tokens, d), `pooled` (B, p) and, where the model embeds it, `guidance` (B,).

    A model that embeds guidance is trained at 1; without the embedding, guidance other than 1 is the classifier-free kind.
    """

    pipeline_class = "FluxPipeline"
    component = "transformer"
    gives_sigmas = True

    def __init__(self, pipeline: Any, device: str | torch.device, dtype: torch.dtype) -> None:
        super().__init__(pipeline, device, dtype)
        self.embeds_guidance = self.denoiser.config.guidance_embeds
        self.default_guidance = 3.5 if self.embeds_guidance else 1.0
        self.default_steps = 28 if self.embeds_guidance else 4
        self.text_length: int = min(512 if self.embeds_guidance else 256, pipeline.tokenizer_2.model_max_length)
        # The transformer has no size of its own; the most tokens that the schedule knows are those of the usual square.
        tokens = self.scheduler_config.get("max_image_seq_len", 4096)
        self.default_size = self.latent_scale * self.patch * round(tokens**0.5)

    @torch.no_grad()
    def encode_text(self, captions: list[str]) -> Conditioning:
        context, pooled, _ = self.pipeline.encode_prompt(captions, device=self.text_device, max_sequence_length=self.text_length)
        conditioning = {"context": context.to(self.dtype), "pooled": pooled.to(self.dtype)}
        if self.embeds_guidance:
            conditioning["guidance"] = torch.ones(len(captions), device=self.text_device)
        return conditioning

    def blank_conditioning(self, rows: int) -> Conditioning:
        config = self.denoiser.config
        shapes = {"context": (rows, self.text_length, config.joint_attention_dim), "pooled": (rows, config.pooled_projection_dim)}
        blank = {name: torch.zeros(shape, dtype=self.dtype) for name, shape in shapes.items()}
        return {**blank, "guidance": torch.ones(rows)} if self.embeds_guidance else blank

    def predict(self, noisy: Tensor, levels: Tensor, conditioning: Conditioning) -> Tensor:
        context, pooled = (conditioning[key].to(self.device, self.dtype) for key in ("context", "pooled"))
        guidance = conditioning.get("guidance")
        height, width = noisy.shape[-2:]
        flow = self.denoiser(
            hidden_states=pack(noisy.to(self.device, self.dtype)), encoder_hidden_states=context, pooled_projections=pooled,
            timestep=levels.to(self.device), guidance=None if guidance is None else guidance.to(self.device, torch.float32),
            img_ids=image_ids(height // 2, width // 2).to(self.device), txt_ids=torch.zeros(context.shape[1], 3, device=self.device),
        ).sample  # fmt: skip
        return unpack(flow, height, width).to(noisy.dtype)


def pack(latents: Tensor) -> Tensor:
    """(B, c, h, w) → tokens (B, h/2·w/2, 4c), each of 2 × 2 cells."""
    count, channels, height, width = latents.shape
    cells = latents.reshape(count, channels, height // 2, 2, width // 2, 2)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(count, (height // 2) * (width // 2), channels * 4)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pack`, for latents of height × width cells."""
    count, _, channels = tokens.shape
    cells = tokens.reshape(count, height // 2, width // 2, channels // 4, 2, 2)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(count, channels // 4, height, width)


def image_ids(rows: int, columns: int) -> Tensor:
    """(rows·columns, 3): 0, row and column of each token."""
    ids = torch.zeros(rows, columns, 3)
    ids[..., 1] = torch.arange(rows)[:, None]
    ids[..., 2] = torch.arange(columns)[None, :]
    return ids.reshape(-1, 3)
