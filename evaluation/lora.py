"""The peer: LoRA through peft, trained with the same batches, noise, loss and steps as an adapter of ours, plain or with the quiet term."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..sparsedict_core.site_discovery import discover_sites
from ..trainer.backends.base import Backend
from ..trainer.batches import QUIET, TrainingSet, draw_batch
from ..trainer.config import TrainConfig
from ..trainer.loop import check_finite, noise_loss
from ..trainer.losses import quiet_term
from ..trainer.optimisers import make_optimiser
from ..trainer.schedules import lr_factor, quiet_weight

NAME = "peer"


@dataclass
class TrainedLora:
    """LoRA's weights by parameter name, and what they cost."""

    weights: dict[str, torch.Tensor]
    parameters: int
    rank: int
    learning_rate: float
    seconds: float
    losses: list[float]


def rank_for(parameters: int, backend: Backend) -> int:
    """The rank whose trainable parameters come nearest to `parameters`, on the same Linears as ours."""
    modules = dict(backend.denoiser.named_modules())
    per_rank = 0
    for site in discover_sites(backend.denoiser).sites:
        linear = modules[site.path.removeprefix(backend.component + ".")]
        per_rank += linear.in_features + linear.out_features
    return max(1, round(parameters / per_rank))


@contextmanager
def attached_lora(backend: Backend, rank: int, seed: int = 0) -> Iterator[list[tuple[str, nn.Parameter]]]:
    """LoRA on our sites within the block; yields its parameters. The base is as before afterwards."""
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    torch.manual_seed(seed)
    targets = [site.path.removeprefix(backend.component + ".") for site in discover_sites(backend.denoiser).sites]
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, init_lora_weights=True)
    inject_adapter_in_model(config, backend.denoiser, adapter_name=NAME)
    try:
        yield [(n, p) for n, p in backend.denoiser.named_parameters() if "lora_" in n]
    finally:
        for name, module in list(backend.denoiser.named_modules()):
            if isinstance(module, LoraLayer):
                parent, _, child = name.rpartition(".")
                holder = backend.denoiser.get_submodule(parent)
                setattr(holder, child, module.base_layer)
        backend.denoiser.__dict__.pop("peft_config", None)


def train_lora(
    config: TrainConfig, backend: Backend, sets: list[TrainingSet], rank: int, learning_rate: float,
    progress: Callable[[int, int], None] | None = None,
) -> TrainedLora:  # fmt: skip
    """Train LoRA with `config`'s data, seed, steps and optimiser; `config.quiet` says whether with the quiet term."""
    generator = torch.Generator().manual_seed(config.seed)
    updates: dict[str, torch.Tensor] = {}
    with attached_lora(backend, rank, config.seed) as named:
        parameters = [p for _, p in named]
        for p in parameters:
            p.requires_grad_(True)
        handles = [
            module.register_forward_hook(lambda m, a, out, key=name: updates.__setitem__(key, out))
            for name, module in backend.denoiser.named_modules()
            if name.endswith(f"lora_B.{NAME}")
        ]
        optimiser = make_optimiser(replace(config, learning_rate=learning_rate), parameters)
        losses, began = [], time.time()
        for step in range(config.steps):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate * lr_factor(config, step)
            batch = draw_batch(config, backend, sets, generator).to(backend.device, backend.dtype)
            updates.clear()
            loss = noise_loss(config, backend, batch)
            losses.append(loss.item())
            if config.quiet and step > 0:
                loss = loss + quiet_weight(config, step) * quiet_term(dict(updates), batch.kind == QUIET)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
            check_finite(losses[-1], float(norm), step, None)
            optimiser.step()
            if progress is not None:
                progress(step + 1, config.steps)
        for handle in handles:
            handle.remove()
        weights = {n: p.detach().clone() for n, p in named}
        count = sum(p.numel() for p in parameters)
    return TrainedLora(weights, count, rank, learning_rate, time.time() - began, losses)


@contextmanager
def applied_lora(backend: Backend, lora: TrainedLora, strength: float = 1.0) -> Iterator[None]:
    """A trained LoRA on the model within the block, at a strength."""
    with attached_lora(backend, lora.rank) as named, torch.no_grad():
        for name, parameter in named:
            parameter.copy_(lora.weights[name] * (strength if "lora_B" in name else 1.0))
        yield
