"""The embedded base model as a backend: flow matching with shift 1 and logit-normal levels t in (0, 1)."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

from ...demo_model.codec import CHANNELS, PATCH
from ...demo_model.pipeline import DEFAULT_GUIDANCE, DEFAULT_STEPS, DemoPipeline
from ...demo_model.scene import SIZE, caption, random_scene
from ...demo_model.vocabulary import PLACEHOLDERS, UnknownWordError
from ...sparsedict_core.errors import DataError
from ...sparsedict_core.fingerprint import fingerprint
from ...sparsedict_core.site_discovery import discover_sites
from .base import Conditioning, StepCallback
from .flow import StraightFlow

QUIET_PROMPTS = 96


class DemoBackend(StraightFlow):
    """Wraps a DemoPipeline."""

    family, component, prediction = "sd3", "transformer", "flow"
    latent_channels, latent_scale, size_multiple = CHANNELS, PATCH, 2 * PATCH
    default_size, default_guidance = SIZE, DEFAULT_GUIDANCE
    default_caption = "a {}"  # in words that it knows
    fixed_size = True  # its positions are those of 96 × 96 pictures

    def __init__(self, pipeline: DemoPipeline) -> None:
        self.pipeline = pipeline
        self.denoiser: nn.Module = pipeline.transformer

    @classmethod
    def load(cls, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> DemoBackend:
        return cls(DemoPipeline.load(device, dtype))

    @property
    def device(self) -> torch.device:
        return self.pipeline.device

    @property
    def dtype(self) -> torch.dtype:
        return self.pipeline.dtype

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        return self.pipeline.codec.encode(images.to(self.device, self.dtype))

    def encode_captions(self, captions: list[str]) -> Conditioning:
        try:
            context, pooled = self.pipeline.encode_captions(captions)
        except UnknownWordError as error:
            raise DataError(str(error)) from error
        return {"context": context, "pooled": pooled}

    def predict(self, noisy: Tensor, levels: Tensor, conditioning: Conditioning) -> Tensor:
        return self.pipeline.predict(noisy, levels.to(noisy), conditioning["context"], conditioning["pooled"])

    def sample(
        self, captions: list[str], noise: Tensor, steps: int | None = None, guidance: float | None = None, callback: StepCallback | None = None
    ) -> Tensor:
        strength = DEFAULT_GUIDANCE if guidance is None else guidance
        try:
            return self.pipeline.sample(captions, noise, steps or DEFAULT_STEPS, strength, callback)
        except UnknownWordError as error:
            raise DataError(str(error)) from error

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        return self.pipeline.codec.decode(latents.to(self.device, self.dtype)).clamp(-1, 1)

    def fingerprint(self) -> str:
        return fingerprint(self.denoiser, discover_sites(self.denoiser).sites, self.component)

    def sampling_key(self) -> str:
        return "bf16" if self.pipeline.autocast else ""

    def spare_words(self) -> list[str]:
        return list(PLACEHOLDERS)

    def quiet_prompts(self) -> list[str]:
        return demo_quiet_prompts()


def demo_quiet_prompts() -> list[str]:
    """Captions in the embedded base's own words."""
    rng = random.Random(3)
    return [caption(random_scene(rng), rng) for _ in range(QUIET_PROMPTS)]
