"""One training step that is thrown away, before anything slow: what does not fit into memory says so in the first minute."""

from __future__ import annotations

import torch

from ..sparsedict_core.adapter import SparseAdapter
from .backends.base import Backend, sites_of
from .batches import CONCEPT, Batch, Rows
from .config import TrainConfig
from .forward import noise_loss, recomputed_blocks
from .optimisers import make_optimiser


def try_step(config: TrainConfig, backend: Backend, rows: Rows) -> None:
    """A forward, a backward and an optimiser's step on as many of `rows` as a real step takes at once; nothing of it stays.

    Raises what the allocator raises. Draws from generators of its own, so that the run is the same with and without it.
    """
    backend.denoiser.requires_grad_(False)
    adapter = SparseAdapter.create(backend.denoiser, sites_of(backend, config.sites).sites, config.adapter_config(), backend.component, config.seed)
    adapter.trainable().to(backend.device)
    parameters = [parameter for _, parameter in adapter.trainable_parameters()]
    optimiser = make_optimiser(config, parameters)
    with recomputed_blocks(backend, config.gradient_checkpointing), adapter.attach(backend.denoiser, component=backend.component):
        noise_loss(config, backend, trial_batch(config, backend, rows)).backward()
        optimiser.step()


def trial_batch(config: TrainConfig, backend: Backend, rows: Rows) -> Batch:
    """`config.rows` of the rows, taken in turn."""
    generator = torch.Generator().manual_seed(config.seed)
    chosen = torch.arange(config.rows) % len(rows.latents)
    latents, conditioning = rows.pick(chosen, generator)
    levels = backend.sample_noise_levels(len(latents), generator, (int(latents.shape[-2]), int(latents.shape[-1])))
    noise = torch.randn(latents.shape, generator=generator)
    kind = torch.full((len(latents),), CONCEPT)
    return Batch(latents, noise, levels, conditioning, kind).to(backend.device, backend.dtype)
