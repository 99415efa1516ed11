"""What only a base model at work can say: which atoms of a dictionary matter, and what a gated one's inputs look like."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.folding import SiteSamples
from ..sparsedict_core.importance import ImportanceStats
from ..trainer.backends.base import Backend
from ..trainer.callbacks import Callbacks
from ..trainer.config import TrainConfig
from ..trainer.data import ConceptData
from ..trainer.shrink import HEAL_QUIET_SAMPLES, collected, training_sets


@torch.no_grad()
def order_by_prompts(adapter: SparseAdapter, backend: Backend, prompts: Sequence[str], seed: int = 0, steps: int | None = None) -> None:
    """Set importance and moments, in place, from pictures that the base draws of `prompts` with the dictionary on it, one a prompt."""
    stats = ImportanceStats(moments=True)
    side = backend.default_size // backend.latent_scale
    noise = torch.randn(len(prompts), backend.latent_channels, side, side, generator=torch.Generator().manual_seed(seed))
    with adapter.attach(backend.denoiser, component=backend.component) as attachment, stats.collect(attachment):
        for number, prompt in enumerate(prompts):
            backend.sample([prompt], noise[number : number + 1].to(backend.device, backend.dtype), steps)
    stats.to_importance(adapter)


def inputs_of(adapter: SparseAdapter, backend: Backend, report: Callbacks, images: Path | None = None, seed: int = 0) -> Mapping[str, SiteSamples]:
    """Inputs by site, of the concept's pictures (`images`, else those that the dictionary draws itself) and of the base's own samples.

    Raises TrainingError where there are neither images nor a trigger word.
    """
    data = None if images is None else ConceptData.from_folder(images, resolution=backend.default_size)
    with tempfile.TemporaryDirectory(prefix="sparsedict-") as cache:
        config = TrainConfig(cache=cache, seed=seed, quiet_samples=HEAL_QUIET_SAMPLES)
        return collected(adapter, backend, config, training_sets(config, backend, adapter, data, report))
