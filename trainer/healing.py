"""A few steps of training with the base at hand, which shrinking, merging and gating end with."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..sparsedict_core.adapter import SparseAdapter
from .backends.base import Backend
from .callbacks import Callbacks
from .config import TrainConfig
from .forward import recomputed_blocks
from .schedules import heal_factor

#: (step, generator): adds the step's gradients.
Gradients = Callable[[int, torch.Generator], None]


def heal(
    adapter: SparseAdapter, backend: Backend, config: TrainConfig, gradients: Gradients, steps: int, rate: float, seed: int, report: Callbacks, name: str
) -> None:
    """Train all that the adapter learns, in place; `name` is what `report` is told."""
    adapter.trainable().to(backend.device)
    learned = [parameter for _, parameter in adapter.trainable_parameters()]
    optimiser = torch.optim.Adam(learned, lr=rate, betas=config.betas)
    generator = torch.Generator().manual_seed(seed)
    with recomputed_blocks(backend, config.gradient_checkpointing):
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = rate * heal_factor(step, steps)
            optimiser.zero_grad(set_to_none=True)
            gradients(step, generator)
            torch.nn.utils.clip_grad_norm_(learned, config.max_grad_norm)
            optimiser.step()
            report.on_progress(name, step + 1, steps)
    adapter.requires_grad_(False)
