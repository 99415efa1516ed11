"""The peers: LoRA and its kin through peft, trained with the same batches, noise, loss and steps as an adapter of ours, plain or with the quiet term."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..sparsedict_core.site_discovery import discover_sites
from ..trainer.backends.base import Backend
from ..trainer.batches import QUIET, Batch, TrainingSet, draw_batch
from ..trainer.config import TrainConfig
from ..trainer.forward import noise_loss
from ..trainer.loop import check_finite
from ..trainer.losses import quiet_term
from ..trainer.optimisers import make_optimiser
from ..trainer.schedules import heal_factor, lr_factor, quiet_weight
from ..trainer.shrink import HEAL_RATE, HEAL_STEPS

NAME = "peer"
MAX_SIZE = 1 << 15


def _lora(size: int, **more: Any) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=size, lora_alpha=size, init_lora_weights=True, **more)


def _named(name: str, size: int, **more: Any) -> Any:
    import peft

    return getattr(peft, name)(r=size, **more)


def _oft(size: int) -> Any:
    from peft import OFTConfig

    return OFTConfig(r=0, oft_block_size=size, use_cayley_neumann=False)


# Each maker takes the one number that decides how many parameters there are. Scales are 1, as the rate is searched.
PEERS: dict[str, Callable[[int], Any]] = {
    "lora": _lora,
    "dora": partial(_lora, use_dora=True),
    "oft": _oft,
    "lokr": lambda size: _named("LoKrConfig", _WHOLE, alpha=_WHOLE, decompose_factor=size),
    "loha": lambda size: _named("LoHaConfig", size, alpha=size),
    "shira": partial(_named, "ShiraConfig"),
    "vera": partial(_named, "VeraConfig"),
}
# A rank past the width makes LoKr's second factor a whole matrix; its size is then the side of the first.
_WHOLE = 1 << 15
# OFT's blocks and LoKr's factors must divide the width, and are few.
DIVIDERS = ("oft", "lokr")
LABELS = {"lora": "LoRA", "dora": "DoRA", "oft": "OFT", "lokr": "LoKr", "loha": "LoHa", "shira": "SHiRA", "vera": "VeRA", "full": "full fine-tuning"}


class Unfrozen(nn.Module):
    """A Linear with a dense trainable change of its weight: full fine-tuning, in a form that can be taken off."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer, self.change = base, nn.Parameter(torch.zeros_like(base.weight))

    def forward(self, x: Tensor) -> Tensor:
        """x (…, d_in) → (…, d_out)."""
        return F.linear(x, self.base_layer.weight + self.change, self.base_layer.bias)


@dataclass
class TrainedPeer:
    """A peer's weights by parameter name, and what they cost."""

    method: str
    size: int  # rank; the block's side for OFT, the first factor's for LoKr
    weights: dict[str, Tensor]
    parameters: int
    learning_rate: float
    seconds: float
    losses: list[float]


def targets(backend: Backend) -> list[str]:
    """The Linears that our adapter acts on, by module path."""
    return [site.path.removeprefix(backend.component + ".") for site in discover_sites(backend.denoiser).sites]


def size_for(method: str, parameters: int, backend: Backend) -> int:
    """The size whose trainable parameters come nearest to `parameters`, on the same Linears as ours."""
    if method == "full":
        return 0
    if method in DIVIDERS:
        width = backend.denoiser.get_submodule(targets(backend)[0]).in_features
        sizes = [size for size in range(2, width + 1) if width % size == 0]
        return min(sizes, key=lambda size: abs(_count(backend, method, size) - parameters))
    # Counts grow with the size: double, then halve.
    low, high = 1, 2
    while high < MAX_SIZE and _count(backend, method, high) < parameters:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _count(backend, method, middle) < parameters else (low, middle)
    return min((low, high), key=lambda size: abs(_count(backend, method, size) - parameters))


def _count(backend: Backend, method: str, size: int) -> int:
    with attached_peer(backend, method, size) as named:
        return sum(p.numel() for _, p in named)


@contextmanager
def attached_peer(backend: Backend, method: str, size: int, seed: int = 0) -> Iterator[list[tuple[str, nn.Parameter]]]:
    """A fresh peer on our sites within the block; yields its trainable parameters. The base is as before afterwards."""
    model, known = backend.denoiser, {id(p) for p in backend.denoiser.parameters()}
    torch.manual_seed(seed)
    paths = targets(backend)
    if method == "full":
        for path in paths:
            _put(model, path, Unfrozen(model.get_submodule(path)))
    else:
        from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

        config = PEERS[method](size)
        config.target_modules = set(paths)
        PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](model, config, NAME)
        if method == "vera":
            for path in paths:
                module: Any = model.get_submodule(path)
                module.forward = partial(_by_its_weight, module)
    try:
        yield [(n, p) for n, p in model.named_parameters() if id(p) not in known and p.requires_grad]
    finally:
        unwrap(backend)


def _by_its_weight(layer: Any, x: Tensor) -> Tensor:
    """VeRA's output from its change of the weight: at as many numbers as ours its rank is 50 times the width, and row by row that is the dearer way."""
    return F.linear(x, layer.base_layer.weight + layer.get_delta_weight(NAME), layer.base_layer.bias)


def unwrap(backend: Backend) -> None:
    """Take whatever is on our sites off again."""
    for path in targets(backend):
        module = backend.denoiser.get_submodule(path)
        if hasattr(module, "base_layer"):
            _put(backend.denoiser, path, module.base_layer)
    backend.denoiser.__dict__.pop("peft_config", None)


def _put(model: nn.Module, path: str, module: Any) -> None:
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def watch_updates(backend: Backend, into: dict[str, Tensor]) -> list[Any]:
    """Hooks that keep what a peer adds to each site's output, with its graph; returns their handles."""

    def added(module: nn.Module, args: tuple, out: Tensor, path: str) -> None:
        into[path] = out - F.linear(args[0], module.base_layer.weight, module.base_layer.bias)

    handles = []
    for path in targets(backend):
        module = backend.denoiser.get_submodule(path)
        if hasattr(module, "lora_B") and not getattr(module, "use_dora", {}).get(NAME):
            # LoRA has it at hand; for the others the base's own output is taken away.
            keep = partial(lambda m, args, out, path: into.__setitem__(path, out), path=path)
            handles.append(module.lora_B[NAME].register_forward_hook(keep))
        else:
            handles.append(module.register_forward_hook(partial(added, path=path)))
    return handles


def train_peer(
    config: TrainConfig, backend: Backend, sets: list[TrainingSet], method: str, size: int, learning_rate: float,
    progress: Callable[[int, int], None] | None = None,
) -> TrainedPeer:  # fmt: skip
    """Train a peer with `config`'s data, seed, steps and optimiser; `config.quiet` says whether with the quiet term."""
    generator = torch.Generator().manual_seed(config.seed)
    updates: dict[str, Tensor] = {}
    with attached_peer(backend, method, size, config.seed) as named:
        parameters = [p for _, p in named]
        handles = watch_updates(backend, updates) if config.quiet else []
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
    return TrainedPeer(method, size, weights, count, learning_rate, time.time() - began, losses)


def heal_peer(small: TrainedPeer, whole: TrainedPeer, backend: Backend, config: TrainConfig, sets: list[TrainingSet], steps: int = HEAL_STEPS) -> TrainedPeer:
    """Distil `whole` into `small`, with the batches, steps, rate and schedule that `trainer.shrink.distil` has for ours; a new peer."""
    wanted = []
    with applied_peer(backend, whole), torch.no_grad():
        for batch in _heal_batches(config, backend, sets, steps):
            wanted.append(_prediction(backend, batch))
    with attached_peer(backend, small.method, small.size) as named:
        parameters = [p for _, p in named]
        _load(named, small)
        optimiser = torch.optim.Adam(parameters, lr=HEAL_RATE, betas=config.betas)
        began = time.time()
        for step, (batch, aim) in enumerate(zip(_heal_batches(config, backend, sets, steps), wanted, strict=True)):
            for group in optimiser.param_groups:
                group["lr"] = HEAL_RATE * heal_factor(step, steps)
            loss = (_prediction(backend, batch) - aim).square().mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
            optimiser.step()
        weights = {n: p.detach().clone() for n, p in named}
    return replace(small, weights=weights, seconds=small.seconds + time.time() - began)


def _heal_batches(config: TrainConfig, backend: Backend, sets: list[TrainingSet], steps: int) -> Iterator[Batch]:
    """The same ones each time."""
    generator = torch.Generator().manual_seed(config.seed + 9)
    for _ in range(steps):
        yield draw_batch(config, backend, sets, generator).to(backend.device, backend.dtype)


def _prediction(backend: Backend, batch: Batch) -> Tensor:
    return backend.predict(backend.add_noise(batch.latents, batch.noise, batch.levels), batch.levels, batch.conditioning).float()


@contextmanager
def applied_peer(backend: Backend, peer: TrainedPeer, strength: float = 1.0) -> Iterator[None]:
    """A trained peer on the model within the block; a strength other than 1 is LoRA's only."""
    if strength != 1.0 and peer.method != "lora":
        raise ValueError(f"{peer.method} has no strength here.")
    with attached_peer(backend, peer.method, peer.size) as named, torch.no_grad():
        _load(named, peer, strength)
        yield


@torch.no_grad()
def _load(named: list[tuple[str, nn.Parameter]], peer: TrainedPeer, strength: float = 1.0) -> None:
    """Put the peer's weights into what `attached_peer` yields."""
    for name, parameter in named:
        parameter.copy_(peer.weights[name] * (strength if "lora_B" in name else 1.0))
