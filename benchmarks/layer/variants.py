"""What is compared at real widths: nothing, peft's adapters beside their Linears, and ours; each on and off within a block."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ... import sparsedict_core
from ...evaluation.peers import attached_peer
from ...trainer.revival import DeadAtoms
from .models import WideModel

LORA_RANK, OFT_BLOCK = 16, 64  # as many numbers, to two per cent, where a Linear is as wide as it is high
RANK = 16
EQUAL_RANK = 15  # a basis a little narrower leaves room for the atoms
ATOMS = (16, 64, 128, 256, 1024)
SHARES = (0.5, 0.25, 0.10, 0.05)
DENSITY = 0.10
BEFORE = "before"  # the suffix of variants that run another core
BEFORE_TOO = {"ours_equal", "ours_128", "ours_256", "ours_128_10%"}


def core_at(folder: Path | None) -> Any:
    """This core, or the `sparsedict_core` in another folder, beside it in one process."""
    if folder is None:
        return sparsedict_core
    name = "sparsedict_core_before"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
        if spec is None or spec.loader is None or not (folder / "__init__.py").exists():
            raise SystemExit(f"there is no sparsedict_core at {folder}.")
        module: ModuleType = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def lora_parameters(widths: list[tuple[int, int]], rank: int = LORA_RANK) -> int:
    return sum(rank * (a + b) for a, b in widths)


def our_parameters(widths: list[tuple[int, int]], atoms: int, rank: int) -> int:
    return sum(2 * atoms * rank + atoms + rank * (a + b) for a, b in widths)


def equal_atoms(widths: list[tuple[int, int]]) -> int:
    """The most atoms at EQUAL_RANK that need no more numbers than LoRA at LORA_RANK."""
    return max(m for m in range(1, 1025) if m == 1 or our_parameters(widths, m, EQUAL_RANK) <= lora_parameters(widths))


def trained_adapter(core: Any, model: Any, component: str, sites: list[Any], atoms: int, rank: int = RANK) -> Any:
    """An adapter that does something, with about a tenth of its coefficients at work, and an importance for each atom."""
    adapter = core.SparseAdapter.create(model, [core.SiteName(site.path, site.layer, site.stream) for site in sites], core.AdapterConfig(atoms=atoms, rank=rank), component)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for site in adapter.sites.values():
            site.dictionary_basis.copy_(1e-3 * torch.randn(site.dictionary_basis.shape, generator=generator))
            site.threshold.fill_(0.7)
            site.importance.copy_(torch.rand(site.atoms, generator=generator))
            # Of the base's inputs, so that the call has a standardisation to do as a trained adapter's has.
            site.set_input_statistics(0.1 * torch.randn(site.d_in, generator=generator), 0.5 + torch.rand(site.d_in, generator=generator))
    return adapter.requires_grad_(False)


def pruned(core: Any, adapter: Any, share: float) -> Any:
    """The atoms of the highest importance over all sites, the others physically gone."""
    return core.prune(adapter, core.select(adapter, core.Selection(keep=share)))


@dataclass
class Worker:
    """An adapter on a model: its parameters, and what frames a training step."""

    parameters: list[nn.Parameter] = field(default_factory=list)
    begin: Callable[[], Any] = lambda: None
    forward_done: Callable[[], Any] = lambda: None
    commit: Callable[[], Any] = lambda: None


@dataclass
class Variant:
    """One way; `on(training)` puts it on the model."""

    name: str
    parameters: int
    on: Callable[[bool], AbstractContextManager[Worker]]


@contextmanager
def nothing(training: bool) -> Iterator[Worker]:
    yield Worker()


def peer(model: WideModel, method: str, size: int) -> Variant:
    """LoRA, DoRA or OFT through peft, unmerged."""

    @contextmanager
    def on(training: bool) -> Iterator[Worker]:
        with attached_peer(model, method, size) as named:  # type: ignore[arg-type]
            if training:
                yield Worker([parameter for _, parameter in named])
                return
            for _, parameter in named:
                parameter.requires_grad_(False)
            yield Worker()

    with attached_peer(model, method, size) as named:  # type: ignore[arg-type]
        count = sum(parameter.numel() for _, parameter in named)
    return Variant(method, count, on)


def ours(model: WideModel, core: Any, adapter: Any, name: str) -> Variant:
    """Our adapter; in training with all that the trainer does to the layer in a step."""

    @contextmanager
    def on(training: bool) -> Iterator[Worker]:
        used = adapter.clone().trainable() if training else adapter
        with used.to(next(model.denoiser.parameters()).device).attach(model.denoiser, component=model.component) as attachment:
            if not training:
                yield Worker()
                return
            session, dead = core.TrainingSession(attachment), DeadAtoms(used)

            def fired(key: str, site: Any, x: Tensor, coefficients: Tensor, update: Tensor, output: Tensor) -> None:
                if session.recording:
                    dead.observe(key, coefficients)

            def end() -> None:
                session.commit()
                dead.end_step(None)

            attachment.tap(fired)
            yield Worker([p for _, p in used.trainable_parameters()], lambda: session.begin(DENSITY, rows=1), session.end_forward, end)

    return Variant(name, adapter.parameter_count(), on)


def variants(model: WideModel, sites: list[Any], widths: list[tuple[int, int]], before: Path | None, wanted: set[str] | None = None) -> list[Variant]:
    """All that are `wanted` (None: every one), base first."""
    found = [Variant("base", 0, nothing)]
    for method, size in (("lora", LORA_RANK), ("dora", LORA_RANK), ("oft", OFT_BLOCK)):
        if wanted is None or method in wanted:
            found.append(peer(model, method, size))
    for folder, suffix in ((None, ""), *(((before, f" {BEFORE}"),) if before else ())):
        core = core_at(folder)
        these = wanted if folder is None else (BEFORE_TOO if wanted is None else wanted & BEFORE_TOO)

        def add(name: str, adapter: Any, core: Any = core, suffix: str = suffix) -> None:
            found.append(ours(model, core, adapter, name + suffix))

        def made(atoms: int, rank: int = RANK, core: Any = core) -> Any:
            return trained_adapter(core, model.denoiser, model.component, sites, atoms, rank)

        if these is None or "ours_equal" in these:
            add("ours_equal", made(equal_atoms(widths), EQUAL_RANK))
        for atoms in ATOMS:
            if these is None or f"ours_{atoms}" in these:
                add(f"ours_{atoms}", made(atoms))
        for share in SHARES:
            if these is None or f"ours_128_{share:.0%}" in these:
                add(f"ours_128_{share:.0%}", pruned(core, made(128), share))
    return found
