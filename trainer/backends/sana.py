"""Sana, whose VAE makes latents of 32 × 32 pixels a cell."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from .base import Conditioning
from .diffusers_noise import FlowBackend


class SanaBackend(FlowBackend):
    """Conditioning: `context` (B, tokens, d), `mask` (B, tokens) with 1 where there is text."""

    pipeline_class = "SanaPipeline"
    component = "transformer"
    patch = 1
    default_steps = 20
    default_guidance = 4.5
    text_length = 300

    def __init__(self, pipeline: Any, device: str | torch.device, dtype: torch.dtype) -> None:
        super().__init__(pipeline, device, dtype)
        self.default_size = self.latent_scale * self.denoiser.config.sample_size

    @classmethod
    def codec_shape(cls, vae: Any) -> tuple[int, int]:
        return vae.config.latent_channels, 2 ** (len(vae.config.encoder_block_out_channels) - 1)

    def to_latents(self, images: Tensor) -> Tensor:
        return self.vae.encode(images).latent * self.vae.config.scaling_factor

    @torch.no_grad()
    def encode_text(self, captions: list[str]) -> Conditioning:
        # The empty caption is what guidance leads away from, and gets no instructions.
        instructions = inspect.signature(type(self.pipeline).__call__).parameters["complex_human_instruction"].default
        rows = [
            self.pipeline.encode_prompt(
                [caption], device=self.text_device, do_classifier_free_guidance=False, max_sequence_length=self.text_length,
                complex_human_instruction=instructions if caption else None,
            )[:2]
            for caption in captions
        ]  # fmt: skip
        return {"context": torch.cat([context for context, _ in rows]).to(self.dtype), "mask": torch.cat([mask for _, mask in rows])}

    def blank_conditioning(self, rows: int) -> Conditioning:
        context = torch.zeros(rows, self.text_length, self.denoiser.config.caption_channels, dtype=self.dtype)
        return {"context": context, "mask": torch.ones(rows, self.text_length, dtype=torch.long)}

    def predict(self, noisy: Tensor, levels: Tensor, conditioning: Conditioning) -> Tensor:
        context, mask = conditioning["context"].to(self.device, self.dtype), conditioning["mask"].to(self.device)
        time = levels.to(self.device) * self.scheduler_config.num_train_timesteps * self.denoiser.config.timestep_scale
        flow = self.denoiser(noisy.to(self.device, self.dtype), encoder_hidden_states=context, timestep=time, encoder_attention_mask=mask).sample
        return flow[:, : noisy.shape[1]].to(noisy.dtype)  # some predict a deviation too
