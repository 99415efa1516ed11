"""After training: which atoms matter, on the training images; and the moments that the greedy order needs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.importance import ImportanceStats
from ..sparsedict_core.site import SparseSite
from .backends.base import Backend
from .batches import CONCEPT, TrainingSet, draw_batch
from .config import TrainConfig

BATCHES = 6  # method: about six
BUCKETS = 4
RESPONSE_ROWS = 8
# Sites' energies are weighted by the root of what the model's prediction answers to them: between counting every site's energy alike,
# which keeps what the model hardly hears, and the answer itself, which is of one site taken away alone.
RESPONSE_POWER = 0.5


@torch.no_grad()
def calibrate(
    config: TrainConfig,
    backend: Backend,
    adapter: SparseAdapter,
    sets: list[TrainingSet],
    progress: Callable[[int, int], None] | None = None,
    batches: int = BATCHES,
    responses: bool = True,
) -> ImportanceStats:
    """Set the adapter's importance and moments from the concept's rows of a few batches; returns the statistics.

    With `responses` the moments of each site are weighted by how much the model's prediction answers to it, at the cost of
    one small forward a site: the greedy order over all sites then spends its atoms where the picture changes.
    """
    stats = ImportanceStats(moments=True)
    generator = torch.Generator().manual_seed(config.seed + 991)
    with adapter.attach(backend.denoiser, component=backend.component) as attachment, stats.collect(attachment):
        for number in range(batches):
            batch = draw_batch(config, backend, sets, generator).to(backend.device, backend.dtype)
            rows = batch.kind == CONCEPT
            levels = batch.levels[rows]
            conditioning = {k: v[rows] for k, v in batch.conditioning.items()}
            # Buckets by rank of the level, as families count levels in units of their own.
            order = levels.float().argsort().argsort()
            stats.label(bucket=[int(i) * BUCKETS // len(levels) for i in order.tolist()])
            noisy = backend.add_noise(batch.latents[rows], batch.noise[rows], levels)
            backend.predict(noisy, levels, conditioning)
            if progress is not None:
                progress(number + 1, batches)
    stats.to_importance(adapter)
    if responses:
        for key, response in site_responses(config, backend, adapter, sets).items():
            moments = adapter.sites[key].moments
            if moments is not None and response > 0:
                # The order and the refit within a site don't depend on its scale; the order over all sites does.
                adapter.sites[key].moments = moments * response**RESPONSE_POWER
    return stats


@torch.no_grad()
def site_responses(config: TrainConfig, backend: Backend, adapter: SparseAdapter, sets: list[TrainingSet]) -> dict[str, float]:
    """By site: ‖change of the prediction without the site's update‖² / ‖update‖², over a few of the concept's rows. Our choice."""
    batch = draw_batch(config, backend, sets, torch.Generator().manual_seed(config.seed + 992)).to(backend.device, backend.dtype)
    rows = (batch.kind == CONCEPT).nonzero().flatten()[:RESPONSE_ROWS]
    levels, conditioning = batch.levels[rows], {k: v[rows] for k, v in batch.conditioning.items()}
    noisy = backend.add_noise(batch.latents[rows], batch.noise[rows], levels)
    energy: dict[str, float] = {}

    def note(key: str, site: SparseSite, x: Tensor, coefficients: Tensor, update: Tensor, output: Tensor) -> None:
        energy[key] = float(update.float().square().sum())

    found = {}
    with adapter.attach(backend.denoiser, component=backend.component) as attachment:
        with attachment.tap(note):
            whole = backend.predict(noisy, levels, conditioning).float()
        for key, site in adapter.sites.items():
            attachment.set_gains({key: torch.zeros(site.atoms)})
            without = backend.predict(noisy, levels, conditioning).float()
            found[key] = float((whole - without).square().sum()) / energy[key] if energy.get(key, 0.0) > 0 else 0.0
    return found
