"""Quiet samples: the base's own pictures for other prompts. Made once, cached, and used for the quiet term and the statistics.

No user data is in them. The samples are latents; their captions are kept beside them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.atomic_write import write_atomically
from ..sparsedict_core.errors import TrainingError
from ..sparsedict_core.input_statistics import InputStatistics
from .backends.base import Backend
from .config import TrainConfig

CHUNK = 16
PROMPTS_FILE = Path(__file__).with_name("quiet_prompts.txt")


@dataclass
class QuietSamples:
    """Latents (n, c, h, w) of one size, and their captions."""

    latents: Tensor
    captions: list[str]


def quiet_prompts(config: TrainConfig, backend: Backend) -> list[str]:
    """The prompts of the quiet samples, cycled to their number; one in eight is empty (method)."""
    prompts = config.quiet_prompts or backend.quiet_prompts() or PROMPTS_FILE.read_text("utf-8").split("\n")
    prompts = [prompt.strip() for prompt in prompts if prompt.strip()]
    if not prompts:
        raise TrainingError("the list of quiet prompts is empty; give some prompts, or quiet_samples = 0 for none.")
    every = round(1 / config.quiet_empty_share) if config.quiet_empty_share else 0
    count = config.quiet_samples
    return ["" if every and i % every == every - 1 else prompts[i % len(prompts)] for i in range(count)]


def load_or_make(
    config: TrainConfig, backend: Backend, size: tuple[int, int], folder: Path, progress: Callable[[int, int], None] | None = None
) -> QuietSamples:
    """The quiet samples at a latent size (h, w), from the cache or from the base's own sampler.

    `progress(done, total)` counts samples. A cache that cannot be read is made anew.
    """
    prompts = quiet_prompts(config, backend)
    identity = json.dumps([backend.fingerprint(), prompts, size, config.seed, config.quiet_sampling_steps])
    path = folder / f"quiet-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.safetensors"
    cached = _read(path, len(prompts))
    if cached is not None:
        return QuietSamples(cached, prompts)
    parts = []
    for first in range(0, len(prompts), CHUNK):
        chunk = prompts[first : first + CHUNK]
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + first)
        noise = torch.randn(len(chunk), backend.latent_channels, *size, generator=generator)
        with torch.no_grad():
            latents = backend.sample(chunk, noise.to(backend.device, backend.dtype), config.quiet_sampling_steps)
        parts.append(latents.float().cpu())
        if progress is not None:
            progress(min(first + CHUNK, len(prompts)), len(prompts))
    latents = torch.cat(parts)
    if not bool(torch.isfinite(latents).all()):
        raise TrainingError("the base model's own samples hold NaN or infinity; try another precision (fp32, bf16) for the base.")
    write_atomically(path, to_bytes({"latents": latents.contiguous()}))
    return QuietSamples(latents, prompts)


def _read(path: Path, count: int) -> Tensor | None:
    if not path.exists():
        return None
    try:
        with safe_open(str(path), "pt") as file:
            latents = file.get_tensor("latents")
    except Exception:
        return None
    return latents if len(latents) == count else None


@torch.no_grad()
def measure_inputs(backend: Backend, adapter: SparseAdapter, samples: list[QuietSamples], seed: int) -> None:
    """Set the adapter's input mean and scale from the *base's* activations on `samples`, at the family's noise levels."""
    statistics = InputStatistics()
    names = [site.name for site in adapter.sites.values()]
    generator = torch.Generator().manual_seed(seed + 77)
    with statistics.collect(backend.denoiser, names, adapter.component):
        for group in samples:
            size = (int(group.latents.shape[-2]), int(group.latents.shape[-1]))
            for first in range(0, len(group.latents), CHUNK):
                latents = group.latents[first : first + CHUNK].to(backend.device, backend.dtype)
                levels = backend.sample_noise_levels(len(latents), generator, size).to(backend.device)
                noise = torch.randn(latents.shape, generator=generator).to(latents)
                conditioning = backend.encode_captions(group.captions[first : first + CHUNK])
                backend.predict(backend.add_noise(latents, noise, levels), levels, conditioning)
    statistics.apply(adapter)
