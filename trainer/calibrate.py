"""After training: which atoms matter, on the training images; and the moments that the greedy order needs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.importance import ImportanceStats
from ..sparsedict_core.site import SparseSite
from .backends.base import Backend
from .batches import CONCEPT, Batch, TrainingSet, draw_batch
from .config import TrainConfig
from .forward import autocast

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
    hurried: Callable[[], bool] = lambda: False,
) -> ImportanceStats:
    """Set the adapter's importance and moments from the concept's rows of a few batches; returns the statistics.

    With `responses` the moments of each site are weighted by how much the model's prediction answers to it, at the cost of
    one small forward a site: the greedy order over all sites then spends its atoms where the picture changes.
    Once there is a batch, `hurried` may end it: it says whether whoever waits does not want to any more.
    """
    stats = ImportanceStats(moments=True)
    generator = torch.Generator().manual_seed(config.seed + 991)
    with adapter.attach(backend.denoiser, component=backend.component) as attachment, stats.collect(attachment):
        for number in range(batches):
            batch = draw_batch(config, backend, sets, generator).to(backend.device, backend.dtype)
            rows = (batch.kind == CONCEPT).nonzero().flatten()
            # Buckets by rank of the level, as families count levels in units of their own.
            order = batch.levels[rows].float().argsort().argsort()
            buckets = [int(i) * BUCKETS // len(rows) for i in order.tolist()]
            for first in range(0, len(rows), config.rows):
                stats.label(bucket=buckets[first : first + config.rows])
                predicted(config, backend, batch, rows[first : first + config.rows])
            if progress is not None:
                progress(number + 1, batches)
            if hurried():
                break
    stats.to_importance(adapter)
    if responses and not hurried():
        for key, response in site_responses(config, backend, adapter, sets, hurried).items():
            moments = adapter.sites[key].moments
            if moments is not None and response > 0:
                # The order and the refit within a site don't depend on its scale; the order over all sites does.
                adapter.sites[key].moments = moments * response**RESPONSE_POWER
    return stats


@torch.no_grad()
def site_responses(
    config: TrainConfig, backend: Backend, adapter: SparseAdapter, sets: list[TrainingSet], hurried: Callable[[], bool]
) -> dict[str, float]:
    """By site: ‖change of the prediction without the site's update‖² / ‖update‖², over a few of the concept's rows. Our choice.

    Nothing where it was `hurried` before all sites were known: weights at some of them alone would set those apart.
    """
    batch = draw_batch(config, backend, sets, torch.Generator().manual_seed(config.seed + 992)).to(backend.device, backend.dtype)
    rows = (batch.kind == CONCEPT).nonzero().flatten()[:RESPONSE_ROWS]
    energy: dict[str, float] = {}
    answers: dict[str, float] = {}

    def note(key: str, site: SparseSite, x: Tensor, coefficients: Tensor, update: Tensor, output: Tensor) -> None:
        energy[key] = energy.get(key, 0.0) + float(update.float().square().sum())

    with adapter.attach(backend.denoiser, component=backend.component) as attachment:
        for part in rows.split(config.rows):
            attachment.set_gains(None)
            with attachment.tap(note):
                whole = predicted(config, backend, batch, part)
            for key, site in adapter.sites.items():
                if hurried():
                    return {}
                attachment.set_gains({key: torch.zeros(site.atoms)})
                answers[key] = answers.get(key, 0.0) + float((whole - predicted(config, backend, batch, part)).square().sum())
    return {key: answers[key] / energy[key] if energy.get(key, 0.0) > 0 else 0.0 for key in adapter.sites}


def predicted(config: TrainConfig, backend: Backend, batch: Batch, rows: Tensor) -> Tensor:
    """The prediction for some rows of a batch, (n, c, h, w) in fp32."""
    levels = batch.levels[rows]
    with autocast(config, backend):
        noisy = backend.add_noise(batch.latents[rows], batch.noise[rows], levels)
        return backend.predict(noisy, levels, {k: v[rows] for k, v in batch.conditioning.items()}).float()
