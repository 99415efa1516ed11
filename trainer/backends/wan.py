"""Wan 2.1 on single pictures: films of one frame."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...sparsedict_core.errors import SparseDictError
from .base import Conditioning
from .video_codec import VideoCodecBackend


class WanBackend(VideoCodecBackend):
    """Conditioning: `context` (B, tokens, d). Raises SparseDictError for Wan 2.2, whose pipeline has two denoisers or a time for each token."""

    most_tokens = 512
    pipeline_class = "WanPipeline"
    component = "transformer"
    default_size = 512
    default_steps = 50
    default_guidance = 5.0

    def __init__(self, pipeline: Any, device: str | torch.device, dtype: torch.dtype) -> None:
        if getattr(pipeline.config, "boundary_ratio", None) is not None or getattr(pipeline.config, "expand_timesteps", False):
            raise SparseDictError("this Wan folder is of version 2.2, which trains in parts that are not supported here; use Wan 2.1.")
        super().__init__(pipeline, device, dtype)

    @torch.no_grad()
    def encode_text(self, captions: list[str]) -> Conditioning:
        context, _ = self.pipeline.encode_prompt(captions, do_classifier_free_guidance=False, max_sequence_length=self.text_length, device=self.text_device)
        return {"context": context.to(self.dtype)}

    def blank_conditioning(self, rows: int) -> Conditioning:
        return {"context": torch.zeros(rows, self.text_length, self.denoiser.config.text_dim, dtype=self.dtype)}

    def predict(self, noisy: Tensor, levels: Tensor, conditioning: Conditioning) -> Tensor:
        context = conditioning["context"].to(self.device, self.dtype)
        time = levels.to(self.device) * self.scheduler_config.num_train_timesteps
        flow = self.denoiser(hidden_states=noisy.to(self.device, self.dtype).unsqueeze(2), timestep=time, encoder_hidden_states=context).sample
        return flow.squeeze(2).to(noisy.dtype)
