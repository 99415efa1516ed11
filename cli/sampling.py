"""Images from an opened model, for the commands that make some: noise by seed, adapters attached, atoms masked."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .common import UserError, finite, load_adapter

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from ..sparsedict_core.adapter import SparseAdapter
    from ..sparsedict_core.attachment import Attachment
    from ..trainer.backends.base import Backend


@dataclass(frozen=True)
class AdapterSpec:
    """`name=path:strength`, name and strength optional."""

    name: str
    path: Path
    strength: float = 1.0


def parse_spec(text: str) -> AdapterSpec:
    """A path may hold `:` and `=` itself (`C:\\a.safetensors`): only a number after the last colon is a strength."""
    name, separator, rest = text.partition("=")
    if not separator or "/" in name or "\\" in name:
        name, rest = "", text
    strength = 1.0
    head, colon, tail = rest.rpartition(":")
    if colon:
        try:
            strength, rest = finite(float(tail)), head
        except ValueError:
            if not (len(head) == 1 and tail.startswith(("/", "\\"))) and not Path(rest).exists():
                raise UserError(f"{text!r}: {tail!r} is no strength; write file.safetensors:0.8") from None
    if not rest:
        raise UserError(f"{text!r} names no file; write name=file.safetensors:strength")
    return AdapterSpec(name or name_of(Path(rest)), Path(rest), strength)


def name_of(path: Path) -> str:
    """A member's name from a file's: what a name cannot hold becomes a hyphen."""
    from ..sparsedict_core.addresses import MEMBER_NAME

    if MEMBER_NAME.fullmatch(path.stem):
        return path.stem
    name = re.sub(r"[^A-Za-z0-9_.]+", "-", path.stem).strip("-.")
    return name if MEMBER_NAME.fullmatch(name) else f"adapter-{name}".rstrip("-")


def seeded_noise(backend: Backend, seeds: Sequence[int], size: tuple[int, int]) -> Tensor:
    """(seeds, channels, height, width) on the model's device; drawn on the CPU, so that a seed is the same everywhere."""
    import torch

    if not all(abs(seed) < 2**63 for seed in seeds):
        raise UserError(f"--seed {seeds[-1]}: give a number of at most 18 digits")
    width, height = size
    shape = (backend.latent_channels, height // backend.latent_scale, width // backend.latent_scale)
    rows = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows).to(backend.device, backend.dtype)


@contextlib.contextmanager
def attached(backend: Backend, specs: Sequence[AdapterSpec]) -> Iterator[list[tuple[AdapterSpec, SparseAdapter, Attachment]]]:
    """The adapters on the model, in the order given; off again at the end. One made for another base is refused first."""
    from ..sparsedict_core.base_check import check_base
    from ..sparsedict_core.text_encoders import text_encoder_tensors

    loaded = [(spec, load_adapter(spec.path)) for spec in specs]
    for _, adapter in loaded:
        check_base(adapter, backend.family, backend.fingerprint(), backend.denoiser)
    with contextlib.ExitStack() as stack:
        on = [(spec, adapter, stack.enter_context(adapter.attach(backend.denoiser, spec.strength, backend.component))) for spec, adapter in loaded]
        for spec, adapter, attachment in on:
            left, text = len(adapter.aside), text_encoder_tensors(adapter)
            if text and hasattr(backend, "attach_text_encoders"):
                backend.attach_text_encoders(attachment, spec.name)
                left -= len(text)
            if left:
                warnings.warn(f"{spec.path} holds {left} tensors of a LoRA for which this base has no place; they change nothing here.", stacklevel=2)
        yield on


def sample(backend: Backend, prompt: str, noise: Tensor, steps: int | None, guidance: float | None) -> list[Image.Image]:
    """One picture for each row of noise, all of the same prompt; as many at once as the device's memory takes."""
    import torch

    from ..pictures import to_images

    at_once, images = rows_at_once(backend, noise), []
    with torch.inference_mode():
        for part in noise.split(at_once):
            latents = backend.sample([prompt] * len(part), part, steps, guidance)
            images += to_images(backend.decode(latents))
    return images


def rows_at_once(backend: Backend, noise: Tensor) -> int:
    """How many rows of `noise` are sampled and decoded together."""
    from ..trainer.policy import parameter_count, sampling_rows, weights_of

    side = int((noise.shape[-2] * noise.shape[-1]) ** 0.5 * backend.latent_scale)
    return sampling_rows(backend.family, parameter_count(backend.denoiser), backend.device, side, weights_of(backend))
