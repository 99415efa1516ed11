"""After training: which atoms matter, on the training images; and the moments that the greedy order needs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.functional import decode
from ..sparsedict_core.importance import ImportanceStats
from ..sparsedict_core.site import SparseSite
from .backends.base import Backend
from .batches import CONCEPT, Batch, TrainingSet, draw_batch
from .config import TrainConfig
from .forward import autocast, recomputed_blocks

BATCHES = 6  # about six are enough (docs/method.md)
BUCKETS = 4
# Rows that are probed for the sites' responses, each with a random direction of its own. Measured: benchmarks/world/responses.py.
PROBED_ROWS = 64
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

    With `responses` the moments of each site are weighted by how much the model's prediction answers to it: the greedy order over
    all sites then spends its atoms where the picture changes. Once there is a batch, `hurried` may end it: it says whether whoever
    waits does not want to any more.
    """
    stats = ImportanceStats(moments=True)
    generator = torch.Generator().manual_seed(config.seed + 991)
    with adapter.attach(backend.denoiser, component=backend.component) as attachment, stats.collect(attachment):
        for number in range(batches):
            rows = concept_part(draw_batch(config, backend, sets, generator))
            # Buckets by rank of the level, as families count levels in units of their own.
            order = rows.levels.float().argsort().argsort()
            buckets = [int(i) * BUCKETS // len(order) for i in order.tolist()]
            for first in range(0, len(order), config.rows):
                part = slice(first, first + config.rows)
                stats.label(bucket=buckets[part])
                predicted(config, backend, rows.rows(part).to(backend.device, backend.dtype))
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


def site_responses(
    config: TrainConfig, backend: Backend, adapter: SparseAdapter, sets: list[TrainingSet], hurried: Callable[[], bool], wanted: int = PROBED_ROWS
) -> dict[str, float]:
    """By site: ‖change of the prediction without the site's update‖² / ‖update‖² to first order, over `wanted` of the concept's rows.
    Our choice.

    One backward tells it of all sites: for a random direction p of the prediction, (∂(p·prediction)/∂O · ΔO)² is ‖∂prediction/∂O · ΔO‖²
    on average over p. Nothing where it was `hurried` before all rows were probed.
    """
    device = backend.device
    generator = torch.Generator().manual_seed(config.seed + 992)
    sums = {key: torch.zeros(2, device=device) for key in adapter.sites}  # answers, energies
    forward = False

    def probe(key: str, site: SparseSite, x: Tensor, coefficients: Tensor, update: Tensor, output: Tensor) -> None:
        # ΔO itself would be large to keep until the backward.
        held = coefficients.detach()

        def answer(gradient: Tensor) -> None:
            change = decode(held, site.dictionary_weight.to(held), None if site.dictionary_basis is None else site.dictionary_basis.to(held))
            sums[key][0] += (gradient.float() * change.float()).flatten(1).sum(1).square().sum()

        if forward:  # and not where a block is computed again
            sums[key][1] += update.detach().float().square().sum()
        if update.requires_grad:
            update.register_hook(answer)

    biases = [site.encoder_bias.requires_grad_() for site in adapter.sites.values() if site.atoms]  # so that there is a graph
    done = 0
    try:
        with (
            recomputed_blocks(backend, config.gradient_checkpointing),
            adapter.attach(backend.denoiser, component=backend.component) as attachment,
            attachment.tap(probe),
            torch.enable_grad(),
        ):
            while done < wanted:
                rows = concept_part(draw_batch(config, backend, sets, generator))
                for first in range(0, len(rows.levels), config.rows):
                    if hurried():
                        return {}
                    part = rows.rows(slice(first, min(first + config.rows, wanted - done + first))).to(device, backend.dtype)
                    forward = True
                    made = predicted(config, backend, part)
                    forward = False
                    signs = torch.randint(0, 2, made.shape, generator=generator) * 2.0 - 1
                    torch.autograd.grad(made, biases, signs.to(made.device, non_blocking=True), allow_unused=True)
                    done += len(part.levels)
                    if done >= wanted:
                        break
    finally:
        adapter.requires_grad_(False)
    found = torch.stack(list(sums.values())).tolist()  # the one wait
    return {key: answer / energy if energy > 0 else 0.0 for key, (answer, energy) in zip(sums, found, strict=True)}


def concept_part(batch: Batch) -> Batch:
    """The concept's rows of a batch."""
    return batch.rows((batch.kind == CONCEPT).nonzero().flatten())


def predicted(config: TrainConfig, backend: Backend, batch: Batch) -> Tensor:
    """The prediction for a batch, (n, c, h, w) in fp32."""
    with autocast(config, backend):
        noisy = backend.add_noise(batch.latents, batch.noise, batch.levels)
        return backend.predict(noisy, batch.levels, batch.conditioning).float()
