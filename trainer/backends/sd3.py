"""Stable Diffusion 3 and 3.5; any of the three text encoders may be missing from the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...sparsedict_core.errors import SparseDictError
from .base import Conditioning
from .diffusers_common import CLIP_TOKENS
from .diffusers_noise import FlowBackend


class SD3Backend(FlowBackend):
    """Conditioning: `context` (B, 77 + T5 tokens, d), `pooled` (B, p)."""

    pipeline_class = "StableDiffusion3Pipeline"
    component = "transformer"
    default_guidance = 5.0
    longest_text = 256

    def __init__(self, pipeline: Any, device: str | torch.device, dtype: torch.dtype) -> None:
        self.patch = pipeline.transformer.config.patch_size
        super().__init__(pipeline, device, dtype)
        self.default_size = self.latent_scale * self.denoiser.config.sample_size

    @classmethod
    def load_options(cls, path: Path) -> dict[str, Any]:
        missing = [number for number in ("", "_2", "_3") if not (path / f"text_encoder{number}").is_dir()]
        if len(missing) == 3:
            raise SparseDictError(f"{path} has no text encoder; download at least one of text_encoder, text_encoder_2 and text_encoder_3 into it.")
        # diffusers loads what model_index.json lists, also where only the folder was left out.
        return {f"{part}{number}": None for number in missing for part in ("text_encoder", "tokenizer")}

    @torch.no_grad()
    def encode_text(self, captions: list[str]) -> Conditioning:
        config, pipeline = self.denoiser.config, self.pipeline
        encoders = [(pipeline.tokenizer, pipeline.text_encoder), (pipeline.tokenizer_2, pipeline.text_encoder_2)]
        length = pipeline.tokenizer_max_length
        # A missing CLIP counts as zeros, as wide as the other one leaves room for in the pooled vector.
        known = sum(encoder.config.projection_dim for _, encoder in encoders if encoder is not None)
        missing = [encoder for _, encoder in encoders if encoder is None]
        room = (config.pooled_projection_dim - known) // len(missing) if missing else 0
        states, pooled = [], []
        for tokenizer, encoder in encoders:
            if encoder is None:
                states.append(torch.zeros(len(captions), length, room, device=self.text_device, dtype=self.dtype))
                pooled.append(torch.zeros(len(captions), room, device=self.text_device, dtype=self.dtype))
                continue
            ids = tokenizer(captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
            output = encoder(ids.to(self.text_device), output_hidden_states=True)
            states.append(output.hidden_states[-2].to(self.dtype))
            pooled.append(output[0].to(self.dtype))
        clip = torch.cat(states, dim=-1)
        clip = torch.nn.functional.pad(clip, (0, config.joint_attention_dim - clip.shape[-1]))
        t5_length = self.longest_text if pipeline.tokenizer_3 is None else min(self.longest_text, pipeline.tokenizer_3.model_max_length)
        t5 = pipeline._get_t5_prompt_embeds(captions, max_sequence_length=t5_length, device=self.text_device, dtype=self.dtype)
        return {"context": torch.cat([clip, t5.to(self.dtype)], dim=1), "pooled": torch.cat(pooled, dim=-1)}

    def blank_conditioning(self, rows: int) -> Conditioning:
        config = self.denoiser.config
        shapes = {"context": (rows, CLIP_TOKENS + self.longest_text, config.joint_attention_dim), "pooled": (rows, config.pooled_projection_dim)}
        return {name: torch.zeros(shape, dtype=self.dtype) for name, shape in shapes.items()}

    def predict(self, noisy: Tensor, levels: Tensor, conditioning: Conditioning) -> Tensor:
        context, pooled = (conditioning[key].to(self.device, self.dtype) for key in ("context", "pooled"))
        return self.denoiser(
            hidden_states=noisy.to(self.device, self.dtype), encoder_hidden_states=context, pooled_projections=pooled,
            timestep=levels.to(self.device) * self.scheduler_config.num_train_timesteps,
        ).sample.to(noisy.dtype)  # fmt: skip
