"""What only a base model at work can say: which atoms of a dictionary matter, and what a gated one's inputs look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.folding import SiteSamples
from ..sparsedict_core.importance import ImportanceStats
from ..sparsedict_core.site import SparseSite
from ..trainer.backends.base import Backend
from ..trainer.callbacks import Callbacks
from ..trainer.config import TrainConfig
from ..trainer.shrink import HEAL_QUIET_SAMPLES, collected, training_sets
from ..trainer.training_sets import pictures_of


@torch.no_grad()
def order_by_prompts(adapter: SparseAdapter, backend: Backend, prompts: Sequence[str], seed: int = 0, steps: int | None = None) -> None:
    """Set importance and moments, in place, from pictures that the base draws of `prompts` with the dictionary on it, one a prompt."""
    stats = ImportanceStats(moments=True)
    with adapter.attach(backend.denoiser, component=backend.component) as attachment, stats.collect(attachment):
        draw(backend, prompts, seed, steps)
    stats.to_importance(adapter)


def inputs_of(adapter: SparseAdapter, backend: Backend, report: Callbacks, images: Path | None = None, seed: int = 0) -> Mapping[str, SiteSamples]:
    """Inputs by site, of the concept's pictures (`images`, else those that the dictionary draws itself) and of the base's own samples.

    Raises TrainingError where there are neither images nor a trigger word.
    """
    data = None if images is None else pictures_of(adapter, images, backend)
    config = TrainConfig(seed=seed, quiet_samples=HEAL_QUIET_SAMPLES)
    return collected(adapter, backend, config, training_sets(config, backend, adapter, data, report))


@torch.no_grad()
def sampled_coefficients(adapter: SparseAdapter, backend: Backend, prompts: Sequence[str], seed: int = 0, tokens: int = 64) -> dict[str, Tensor]:
    """Coefficients (N, m) by site key from pictures that the base draws of `prompts` with the dictionary on it, `tokens` a call by chance."""
    found: dict[str, list[Tensor]] = {}
    chance = torch.Generator().manual_seed(seed + 1)

    def note(key: str, site: SparseSite, x: Tensor, coefficients: Tensor, update: Tensor, output: Tensor) -> None:
        flat = coefficients.flatten(0, -2)
        chosen = torch.randint(len(flat), (tokens,), generator=chance).to(flat.device)
        found.setdefault(key, []).append(flat[chosen].double().cpu())

    with adapter.attach(backend.denoiser, component=backend.component) as attachment, attachment.tap(note):
        draw(backend, prompts, seed)
    return {key: torch.cat(parts) for key, parts in found.items()}


def draw(backend: Backend, prompts: Sequence[str], seed: int, steps: int | None = None) -> None:
    """One picture of each prompt, for what is attached to see."""
    side = backend.default_size // backend.latent_scale
    noise = torch.randn(len(prompts), backend.latent_channels, side, side, generator=torch.Generator().manual_seed(seed))
    for number, prompt in enumerate(prompts):
        backend.sample([prompt], noise[number : number + 1].to(backend.device, backend.dtype), steps)
