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
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.atomic_write import write_atomically
from ..sparsedict_core.errors import FileFormatError, TrainingError
from ..sparsedict_core.input_statistics import InputStatistics
from . import samples_cache
from .backends.base import Backend
from .callbacks import Interrupted
from .config import TrainConfig
from .data_summary import listed
from .distribution import Processes

CHUNK = 16
LEAST = 16  # quiet samples of an aspect bucket with few images
WORD_PROMPTS = ("a {}", "a picture of a {}")
PROMPTS_FILE = Path(__file__).with_name("quiet_prompts.txt")


@dataclass
class QuietSamples:
    """Latents (n, c, h, w) of one size, and their captions."""

    latents: Tensor
    captions: list[str]


def bucket_counts(total: int, images: list[int]) -> list[int]:
    """Quiet samples of each aspect bucket, by its share of the images; making them takes long, so no bucket gets all of them."""
    return [max(min(LEAST, total), round(total * count / sum(images))) for count in images]


def spare_words(config: TrainConfig, backend: Backend) -> list[str]:
    """Words that the base never learned, without the concept's own."""
    own: list[str] = getattr(backend, "spare_words", list)()
    words = [word for word in config.quiet_words or own if word != config.placeholder]
    if not words:
        raise TrainingError("quiet_word_share needs words that the base has never learned; give some in quiet_words, or set the share to 0.")
    return words


def quiet_prompts(config: TrainConfig, backend: Backend, count: int | None = None, first: int = 0) -> list[str]:
    """`count` prompts of quiet samples from number `first` on, the list taken in turn; one in eight is empty (docs/method.md)."""
    prompts = config.quiet_prompts or backend.quiet_prompts() or PROMPTS_FILE.read_text("utf-8").split("\n")
    prompts = [prompt.strip() for prompt in prompts if prompt.strip()]
    if not prompts:
        raise TrainingError("the list of quiet prompts is empty; give some prompts, or quiet_samples = 0 for none.")
    share = config.quiet_word_share
    words = spare_words(config, backend) if share else []

    def prompt(i: int) -> str:
        if turns(i + 1, config.quiet_empty_share) > turns(i, config.quiet_empty_share):
            return ""
        number = int(i * share)
        if int((i + 1) * share) > number:
            return WORD_PROMPTS[number // len(words) % len(WORD_PROMPTS)].format(words[number % len(words)])
        return prompts[i % len(prompts)]

    return [prompt(i) for i in range(first, first + (config.quiet_samples if count is None else count))]


def turns(count: int, share: float) -> int:
    """How many of the first `count` are of a share that is spread evenly."""
    # Ten times 0.7 is a little less than 7 in floating point.
    return int(count * share + 1e-9)


def load_or_make(
    config: TrainConfig, backend: Backend, size: tuple[int, int], folder: Path, progress: Callable[[int, int], None] | None = None,
    count: int | None = None, first: int = 0, should_stop: Callable[[], bool] = lambda: False, warn: Callable[[str], None] = lambda text: None,
    processes: Processes | None = None,
) -> QuietSamples:  # fmt: skip
    """`count` quiet samples at a latent size (h, w), from the cache or from the base's own sampler; prompts from number `first` on.

    Several processes make a share each, so that none waits for another longer than one call of the sampler takes.

    `progress(done, total)` counts samples, within a batch by the sampler's steps. A file of the cache that cannot be used is named to
    `warn` and made anew; where the cache cannot be written, that is told too. Raises Interrupted when told to stop.
    """

    at_work = (0, 0)  # samples that are done, and those that the sampler makes now

    processes = processes or Processes(backend.device)

    def ask(step: int, steps: int) -> None:
        if processes.world == 1 and should_stop():
            raise Interrupted
        if progress is not None:
            progress(at_work[0] + at_work[1] * step // steps, len(prompts))

    prompts = quiet_prompts(config, backend, count, first)
    parts_of_it = [backend.fingerprint(), prompts, size, config.seed, config.quiet_sampling_steps]
    if backend.dtype == torch.float16:
        # Rounding makes other samples; of fp16 alone the fingerprint does not tell.
        parts_of_it.append(str(backend.dtype))
    if hasattr(backend, "sampling_key"):
        parts_of_it.append(backend.sampling_key())
    identity = json.dumps(parts_of_it)
    path = folder / f"quiet-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.safetensors"
    cached = _read(path, (len(prompts), backend.latent_channels, *size), warn)
    # Whoever lacks them, all make them.
    if not processes.any(cached is None) and cached is not None:
        return QuietSamples(cached, prompts)
    made = torch.zeros(len(prompts), backend.latent_channels, *size, device=backend.device)
    parts = [(done, first_row) for done in range(0, len(prompts), CHUNK) for first_row in range(0, min(CHUNK, len(prompts) - done), config.rows)]
    # All must call a base that is spread equally often: whoever has no part left makes the last one again.
    rounds = -(-len(parts) // processes.world) * processes.world if getattr(backend, "in_step", False) else len(parts)
    for number in range(processes.rank, rounds, processes.world):
        done, first_row = parts[min(number, len(parts) - 1)]
        chunk = prompts[done : done + CHUNK]
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + done)
        noise = torch.randn(len(chunk), backend.latent_channels, *size, generator=generator)
        rows = slice(first_row, first_row + config.rows)
        at_work = (done + first_row, len(chunk[rows]))
        with torch.no_grad():
            latents = backend.sample(chunk[rows], noise[rows].to(backend.device, backend.dtype), config.quiet_sampling_steps, callback=ask)
        if number < len(parts):
            made[done + first_row : done + first_row + len(latents)] = latents.float()
    latents = processes.sum(made).cpu()
    if not bool(torch.isfinite(latents).all()):
        raise TrainingError("the base model's own samples hold NaN or infinity; try another precision (fp32, bf16) for the base.")
    if processes.local_main:
        try:
            write_atomically(path, to_bytes({"latents": latents.contiguous()}))
        except FileFormatError as error:
            warn(f"the base's samples could not be kept for later runs: {error}")
        samples_cache.trim(folder)
    return QuietSamples(latents, prompts)


def _read(path: Path, shape: tuple[int, ...], warn: Callable[[str], None]) -> Tensor | None:
    if not path.exists():
        return None
    try:
        # Read, not mapped: Windows deletes no file that a tensor is mapped to.
        latents = from_bytes(path.read_bytes())["latents"]
        usable = latents.shape == shape and bool(torch.isfinite(latents).all())
    except Exception:  # the reader raises almost anything on a damaged file, which costs the time to make it anew, no more
        usable = False
    if not usable:
        warn(f"{path} is damaged or holds NaN; the samples in it are made anew.")
        return None
    samples_cache.used(path)
    return latents


@torch.no_grad()
def measure_inputs(
    backend: Backend, adapter: SparseAdapter, samples: list[QuietSamples], seed: int, rows: int = CHUNK, warn: Callable[[str], None] = lambda text: None
) -> SparseAdapter:
    """The adapter with its input mean and scale from the *base's* activations on `samples`, at the family's noise levels.

    At most `rows` go through the model at once. Sites that the model never calls are left out, which `warn` is told.
    """
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
                noisy = backend.add_noise(latents, noise, levels)
                for row in range(0, len(noisy), rows):
                    part = slice(row, row + rows)
                    backend.predict(noisy[part], levels[part], {k: v[part] for k, v in conditioning.items()})
    sites = list(adapter.sites.values())
    called = [site for site in sites if site.name.place in statistics.count]
    if 0 < len(called) < len(sites):
        idle = [site.name.path for site in sites if site not in called]
        warn(f"{len(idle)} of {len(sites)} sites are left out, as a step of this model doesn't call them: {listed(idle)}.")
        adapter = SparseAdapter(called, adapter.config, adapter.component, adapter.metadata)
    statistics.apply(adapter)
    return adapter
