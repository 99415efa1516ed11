"""One pass through the frozen base as training makes it: its loss, the type it computes in, blocks that are recomputed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from ..sparsedict_core.errors import TrainingError
from .backends.base import Backend
from .batches import Batch
from .config import TrainConfig
from .losses import min_snr_weights, row_losses


def autocast(config: TrainConfig, backend: Backend) -> contextlib.AbstractContextManager:
    """The type that the base computes in, by the config's precision."""
    return torch.autocast(backend.device.type, torch.bfloat16) if config.precision == "bf16" else contextlib.nullcontext()


def check_gradients(backend: Backend, config: TrainConfig | None = None) -> None:
    """Refuse a base in fp16, where the gradients of a mean over a picture vanish. Raises TrainingError."""
    if backend.dtype == torch.float16 and (config is None or config.precision != "bf16"):
        way = " or set precision to bf16 (--mixed-precision bf16)" if config else ""
        raise TrainingError(f"the base computes in fp16, in which gradients vanish; load it in bf16 or fp32 (--dtype){way}.")


def noise_loss(config: TrainConfig, backend: Backend, batch: Batch) -> Tensor:
    """The model's own loss over all rows of a batch."""
    with autocast(config, backend):
        noisy = backend.add_noise(batch.latents, batch.noise, batch.levels)
        predicted = backend.predict(noisy, batch.levels, batch.conditioning)
    losses = row_losses(predicted, backend.target(batch.latents, batch.noise, batch.levels), batch.weights)
    return (losses * min_snr_weights(backend.snr(batch.levels), config.min_snr_gamma, backend.prediction)).mean()


@contextlib.contextmanager
def recomputed_blocks(backend: Backend, wanted: bool) -> Iterator[None]:
    """Gradient checkpointing within the block; the base is left as it was found. A backend may bring its own way.

    What is attached to the base must stay so until the backward is done. Raises TrainingError for a base that cannot.
    """
    model = backend if hasattr(backend, "enable_gradient_checkpointing") else backend.denoiser
    if not wanted or getattr(model, "is_gradient_checkpointing", False) or getattr(backend, "recomputes_blocks", False):
        yield
        return
    enable = getattr(model, "enable_gradient_checkpointing", None)
    if enable is None:
        raise TrainingError(f"gradient_checkpointing: {type(model).__name__} cannot recompute its blocks; leave it off.")
    enable()
    try:
        yield
    finally:
        model.disable_gradient_checkpointing()  # type: ignore[union-attr]
