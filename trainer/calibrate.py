"""After training: which atoms matter, on the training images; and the moments that the greedy order needs."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.importance import ImportanceStats
from .backends.base import Backend
from .batches import CONCEPT, TrainingSet, draw_batch
from .config import TrainConfig

BATCHES = 6  # method: about six
BUCKETS = 4


@torch.no_grad()
def calibrate(
    config: TrainConfig,
    backend: Backend,
    adapter: SparseAdapter,
    sets: list[TrainingSet],
    progress: Callable[[int, int], None] | None = None,
    batches: int = BATCHES,
) -> ImportanceStats:
    """Set the adapter's importance and moments from the concept's rows of a few batches; returns the statistics."""
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
    return stats
