"""Loads the embedded base and samples from it. Everything comes from files beside this one; nothing is downloaded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import Tensor

from .architecture import LATENT_SIZE, build_transformer
from .codec import CHANNELS, PatchCodec
from .reader import AttributeReader
from .text_encoder import WordEncoder

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel

WEIGHTS = Path(__file__).parent / "weights"
DEFAULT_STEPS = 16
DEFAULT_GUIDANCE = 3.5


def load_part(name: str) -> dict[str, Tensor]:
    """One weights file as fp32 tensors. Raises FileNotFoundError with what to do when the checkout lacks it."""
    path = WEIGHTS / f"{name}.safetensors"
    if not path.exists():
        raise FileNotFoundError(
            f"the embedded base model's file {path.name} is missing from {WEIGHTS}. Restore it with git, "
            "or make it anew with python -m sparsedict.tools.make_base."
        )
    return {key: value.float() for key, value in load_file(str(path)).items()}


def load_reader() -> AttributeReader:
    """The attribute reader, in eval mode."""
    reader = AttributeReader()
    reader.load_state_dict(load_part("reader"))
    return reader.eval().requires_grad_(False)


class DemoPipeline:
    """Captions → pictures. Flow matching: x_t = (1 − t)·x0 + t·noise, the model predicts noise − x0."""

    def __init__(self, transformer: SD3Transformer2DModel, codec: PatchCodec, words: WordEncoder) -> None:
        self.transformer = transformer.eval().requires_grad_(False)
        self.codec = codec.eval().requires_grad_(False)
        self.words = words.eval().requires_grad_(False)
        self.autocast = False

    @classmethod
    def load(cls, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> DemoPipeline:
        """The shipped weights."""
        transformer, codec, words = build_transformer(), PatchCodec(), WordEncoder()
        # The position table is computed, not stored.
        transformer.load_state_dict(load_part("transformer"), strict=False)
        codec.load_state_dict(load_part("codec"))
        words.load_state_dict(load_part("text_encoder"))
        return cls(transformer, codec, words).to(device, dtype)

    def to(self, device: str | torch.device, dtype: torch.dtype) -> DemoPipeline:
        device = torch.device(device)
        # diffusers warns at every cast, also at one that changes nothing.
        if (device, dtype) != (self.device, self.dtype):
            for part in (self.transformer, self.codec, self.words):
                part.to(device=device, dtype=dtype)
        return self

    @property
    def device(self) -> torch.device:
        return self.words.positions.device

    @property
    def dtype(self) -> torch.dtype:
        return self.words.positions.dtype

    @torch.no_grad()
    def encode_captions(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Context (B, 20, 128) and pooled (B, 128). Raises UnknownWordError."""
        return self.words.encode(captions)

    def predict(self, noisy: Tensor, levels: Tensor, context: Tensor, pooled: Tensor) -> Tensor:
        """The flow at noise levels (B,) in (0, 1); noisy (B, 16, h, w). With `autocast` the transformer's products are in bf16."""
        with torch.autocast(self.device.type, torch.bfloat16) if self.autocast else contextlib.nullcontext():
            flow = self.transformer(
                hidden_states=noisy, encoder_hidden_states=context, pooled_projections=pooled, timestep=levels * 1000
            ).sample
        return flow.to(noisy.dtype)

    @torch.no_grad()
    def sample(
        self,
        captions: list[str],
        noise: Tensor,
        steps: int = DEFAULT_STEPS,
        guidance: float = DEFAULT_GUIDANCE,
        callback: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Latents (B, 16, h, w) by Euler steps from noise of the same shape; ``callback(step, steps)`` after each."""
        count = len(captions)
        noise = noise.to(self.device, self.dtype)
        guided = guidance != 1.0
        context, pooled = self.encode_captions([*captions, ""] if guided else captions)
        if guided:
            context = torch.cat([context[:count], context[-1:].expand(count, -1, -1)])
            pooled = torch.cat([pooled[:count], pooled[-1:].expand(count, -1)])
        times = torch.linspace(1, 0, steps + 1, device=self.device, dtype=self.dtype)
        x = noise
        for index in range(steps):
            t = times[index]
            doubled = torch.cat([x, x]) if guided else x
            flow = self.predict(doubled, t.expand(len(doubled)), context, pooled)
            if guided:
                conditional, unconditional = flow.chunk(2)
                flow = unconditional + guidance * (conditional - unconditional)
            x = x + (times[index + 1] - t) * flow
            if callback is not None:
                callback(index + 1, steps)
        return x

    def generate(
        self,
        captions: list[str],
        seed: int | None = None,
        noise: Tensor | None = None,
        steps: int = DEFAULT_STEPS,
        guidance: float = DEFAULT_GUIDANCE,
    ) -> Tensor:
        """Pictures (B, 3, 96, 96) in [-1, 1], from a seed or from given noise."""
        if noise is None:
            noise = make_noise(len(captions), 0 if seed is None else seed)
        return self.codec.decode(self.sample(captions, noise, steps, guidance)).clamp(-1, 1)


def make_noise(count: int, seed: int, size: int = LATENT_SIZE) -> Tensor:
    """Start noise (count, 16, size, size); row i depends on the seed and i alone."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, CHANNELS, size, size, generator=generator)
