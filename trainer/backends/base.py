"""The narrow interface through which training and sampling know a model. A family is one small file that has these names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from ...sparsedict_core.site_discovery import Discovery, discover_sites

#: What a model is told besides the picture: tensors by name, one row a caption.
Conditioning = dict[str, Tensor]
#: (step, steps)
StepCallback = Callable[[int, int], None]


class Backend(Protocol):
    """A frozen base model with its codec and text encoders.

    A backend may also have: `fixed_size`, one size of pictures only; `default_caption` with `{}` for the word; `sampling_key()`, what else its samples depend on;
    `interruptions`, the exceptions by which a host gives up; `spare_words()`; `keep_encodings(folder)`, from which later runs read what was encoded;
    `in_step`, where all processes must call the denoiser equally often; `recomputes_blocks`, where its blocks wait in the CPU's memory;
    `watch(wanted)`, the `Discovery` of its sites where a step may be needed to see them;
    `enable_gradient_checkpointing()` and its opposite.
    """

    prediction: str  # "epsilon", "v" or "flow"
    latent_channels: int
    latent_scale: int  # pixels per latent cell
    size_multiple: int  # image sides must be multiples of this
    default_size: int
    default_guidance: float

    @property
    def family(self) -> str: ...

    @property
    def component(self) -> str: ...  # prefix of site names: "transformer" or "unet"

    @property
    def denoiser(self) -> nn.Module: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def encode_images(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] → latents (B, c, h, w), as the denoiser sees them."""
        ...

    def encode_captions(self, captions: list[str]) -> Conditioning:
        """One row a caption."""
        ...

    def sample_noise_levels(self, n: int, generator: torch.Generator, latent_size: tuple[int, int]) -> Tensor:
        """(n,) in the family's own unit, drawn on the CPU from `generator`."""
        ...

    def levels_at(self, times: Tensor, latent_size: tuple[int, int], shift: float | None = None) -> Tensor:
        """Levels (n,) in that unit at `times` of the schedule, from 0 (clean) to 1, shifted by `shift`; None: as the family does."""
        ...

    def add_noise(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """Latents (B, c, h, w) at noise levels (B,)."""
        ...

    def target(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """What `predict` should return, (B, c, h, w)."""
        ...

    def snr(self, levels: Tensor) -> Tensor:
        """Signal-to-noise ratio (B,), for min-SNR weights."""
        ...

    def predict(self, noisy: Tensor, levels: Tensor, conditioning: Conditioning) -> Tensor:
        """One pass through the denoiser, with gradients; (B, c, h, w)."""
        ...

    def sample(
        self, captions: list[str], noise: Tensor, steps: int | None = None, guidance: float | None = None, callback: StepCallback | None = None
    ) -> Tensor:
        """Latents from start noise (B, c, h, w); None takes the family's own steps and guidance."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1]."""
        ...

    def fingerprint(self) -> str:
        """Identifies the base's weights."""
        ...

    def quiet_prompts(self) -> list[str]:
        """Prompts that show what the base can do, for the quiet samples; empty: the generic list is taken."""
        ...


def sites_of(backend: Backend, wanted: str) -> Discovery:
    """The sites of the `wanted` kinds (`discover_sites`)."""
    found: Discovery = backend.watch(wanted) if hasattr(backend, "watch") else discover_sites(backend.denoiser, wanted)
    return found
