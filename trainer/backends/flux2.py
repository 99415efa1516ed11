"""Flux 2: dev, which embeds its guidance, and klein, distilled or not. Latents are the VAE's in cells of 2 × 2, each channel normalised."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .base import Conditioning
from .diffusers_noise import FlowBackend


class Flux2Backend(FlowBackend):
    """Conditioning: `context` (B, tokens, d) and, where the model embeds it, `guidance` (B,): 1 in training."""

    most_tokens = 512
    pipeline_class = "Flux2Pipeline"
    component = "transformer"
    gives_sigmas = True
    patch = 1  # the cells are the latents' own
    default_size = 1024

    def __init__(self, pipeline: Any, device: str | torch.device, dtype: torch.dtype) -> None:
        super().__init__(pipeline, device, dtype)
        self.embeds_guidance = self.denoiser.config.guidance_embeds
        distilled = bool(getattr(pipeline.config, "is_distilled", False))
        self.default_steps, self.default_guidance = (4, 1.0) if distilled else (50, 4.0)

    @classmethod
    def codec_shape(cls, vae: Any) -> tuple[int, int]:
        rows, columns = vae.config.patch_size
        return vae.config.latent_channels * rows * columns, rows * 2 ** (len(vae.config.block_out_channels) - 1)

    def to_latents(self, images: Tensor) -> Tensor:
        cells = self.pipeline_kind()._patchify_latents(self.vae.encode(images).latent_dist.mode())
        mean, deviation = self._statistics(cells)
        return (cells - mean) / deviation

    def to_images(self, latents: Tensor) -> Tensor:
        mean, deviation = self._statistics(latents)
        return self.vae.decode(self.pipeline_kind()._unpatchify_latents(latents * deviation + mean)).sample

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        norm = self.vae.bn
        mean, variance = (value.view(1, -1, 1, 1).to(like) for value in (norm.running_mean, norm.running_var))
        return mean, (variance + self.vae.config.batch_norm_eps).sqrt()

    @torch.no_grad()
    def encode_text(self, captions: list[str]) -> Conditioning:
        context, _ = self.pipeline.encode_prompt(captions, device=self.text_device, max_sequence_length=self.text_length)
        conditioning = {"context": context.to(self.dtype)}
        return {**conditioning, "guidance": torch.ones(len(captions), device=self.text_device)} if self.embeds_guidance else conditioning

    def blank_conditioning(self, rows: int) -> Conditioning:
        blank = {"context": torch.zeros(rows, self.text_length, self.denoiser.config.joint_attention_dim, dtype=self.dtype)}
        return {**blank, "guidance": torch.ones(rows)} if self.embeds_guidance else blank

    def _mu(self, latent_size: tuple[int, int], steps: int) -> float:
        from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

        return float(compute_empirical_mu(latent_size[0] * latent_size[1], steps))

    def predict(self, noisy: Tensor, levels: Tensor, conditioning: Conditioning) -> Tensor:
        context, guidance = conditioning["context"].to(self.device, self.dtype), conditioning.get("guidance")
        height, width = noisy.shape[-2:]
        flow = self.denoiser(
            hidden_states=noisy.to(self.device, self.dtype).flatten(2).transpose(1, 2), encoder_hidden_states=context, timestep=levels.to(self.device),
            img_ids=cell_ids(height, width).to(self.device), txt_ids=text_ids(context.shape[1]).to(self.device),
            guidance=None if guidance is None else guidance.to(self.device, torch.float32),
        ).sample  # fmt: skip
        return flow.transpose(1, 2).unflatten(2, (height, width)).to(noisy.dtype)


class Flux2KleinBackend(Flux2Backend):
    """The same with Qwen3 as text encoder."""

    pipeline_class = "Flux2KleinPipeline"


def cell_ids(rows: int, columns: int) -> Tensor:
    """(rows·columns, 4): picture, row, column and place in the text of each cell."""
    ids = torch.zeros(rows, columns, 4)
    ids[..., 1] = torch.arange(rows)[:, None]
    ids[..., 2] = torch.arange(columns)[None, :]
    return ids.reshape(-1, 4)


def text_ids(tokens: int) -> Tensor:
    """(tokens, 4), of the text."""
    ids = torch.zeros(tokens, 4)
    ids[:, 3] = torch.arange(tokens)
    return ids
