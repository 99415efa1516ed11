"""The smallest file at a wanted size: greedy order + refit, or folding into new atoms; then healing with the base at hand.

Healing distils: the small adapter learns to predict what the whole one predicts, on the concept's rows and on quiet rows. The
thresholds stay as they are. Both ways are healed alike and the one with the smaller error is kept. Our choice (method).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.errors import SelectionError
from ..sparsedict_core.file_format import save
from ..sparsedict_core.folding import SiteSamples, fold_into_new_atoms
from ..sparsedict_core.greedy import has_moments
from ..sparsedict_core.prune import prune
from ..sparsedict_core.selection import Selection, select
from ..sparsedict_core.site import SparseSite
from .backends.base import Backend
from .batches import CONCEPT, TrainingSet, draw_batch
from .callbacks import Callbacks
from .config import TrainConfig
from .data import ConceptData
from .distribution import Processes
from .loop import build_sets
from .own_pictures import captions_of, own_rows, own_sets
from .progress import ConsoleProgress
from .schedules import heal_factor

HEAL_STEPS = 150
HEAL_RATE = 2e-3
HEAL_QUIET_SAMPLES = 48
FEW_ATOMS = 0.03  # below this share healing is needed (method); with images at hand it always runs
SAMPLE_BATCHES = 4
CHECK_BATCHES = 4


@dataclass(frozen=True)
class ShrinkResult:
    """A smaller adapter, and what it keeps."""

    adapter: SparseAdapter
    method: str  # "greedy" or "folding"
    size: int  # in `unit`
    unit: str  # "bytes" or "parameters"
    share: float  # of the whole adapter's size; moments count in neither
    error: float  # squared distance to the whole adapter's predictions / the base's; 0 is no loss, 1 is the base
    text: str


def shrink(
    adapter: SparseAdapter,
    backend: Backend,
    share: float,
    images: str | Path | None = None,
    heal_steps: int | None = None,
    data: ConceptData | None = None,
    callbacks: Callbacks | None = None,
    seed: int = 0,
    unit: str = "bytes",
) -> ShrinkResult:
    """An adapter whose file has at most `share` of the bytes of `adapter`'s (both without moments), or of its parameters by `unit`.

    Without images the whole adapter's own pictures for its trigger word are distilled. Raises SelectionError for a share that
    no atom fits in, TrainingError where there are neither images nor a trigger word.
    """
    report = callbacks or ConsoleProgress()
    steps = HEAL_STEPS if heal_steps is None else heal_steps
    if unit not in SIZES:
        raise SelectionError(f"a size is counted in {' or '.join(SIZES)}, not in {unit!r}.")
    size = SIZES[unit]
    whole = size(adapter)
    if data is None and images is not None:
        data = ConceptData.from_folder(Path(images), resolution=backend.default_size)
    with tempfile.TemporaryDirectory(prefix="sparsedict-") as cache:
        config = TrainConfig(cache=cache, seed=seed, quiet_samples=HEAL_QUIET_SAMPLES)
        sets = training_sets(config, backend, adapter, data, report)

    # The search over sizes makes many adapters from one set of samples.
    ways: dict[str, Callable[[int], SparseAdapter]] = {"folding": partial(fold_into_new_atoms, adapter, collected(adapter, backend, config, sets))}
    if has_moments(adapter):
        ways = {"greedy": partial(greedy_atoms, adapter), **ways}
    else:
        report.on_warning("the file has no moments, so atoms cannot be taken in the greedy order; folding alone is tried.")
    found: list[tuple[float, str, SparseAdapter]] = []
    for method, make in ways.items():
        small = fitting(adapter, f"{unit} ({method})", share * whole, make, size)
        heal(small, adapter, backend, config, sets, steps, report, f"healing ({method})")
        found.append((distance(small, adapter, backend, config, sets), method, small))
    error, method, small = min(found, key=lambda entry: entry[0])
    small.compact()
    reached = size(small)
    others = "".join(f"; {name} would keep {1 - e:.1%}" for e, name, _ in found if name != method)
    text = (
        f"{method}: {small.atom_count} atoms, {reached:,} of {whole:,} {unit} ({reached / whole:.1%}, moments not counted), "
        f"{steps} healing steps; keeps {max(0.0, 1 - error):.1%} of what the adapter changes in the model's predictions{others}"
    )
    small.metadata["lineage"] = [*small.metadata.get("lineage", []), {"operation": "shrink", "method": method, "error": round(error, 6)}]
    return ShrinkResult(small, method, reached, unit, reached / whole, error, text)


def size_of(adapter: SparseAdapter) -> int:
    """Bytes of the file, without moments."""
    with tempfile.TemporaryDirectory() as folder:
        return save(adapter, Path(folder) / "size.safetensors", moments=False).bytes


#: What a size is counted in.
SIZES: dict[str, Callable[[SparseAdapter], int]] = {"bytes": size_of, "parameters": SparseAdapter.parameter_count}


def fitting(
    adapter: SparseAdapter, what: str, limit: float, make: Callable[[int], SparseAdapter], size: Callable[[SparseAdapter], int]
) -> SparseAdapter:
    """The adapter with the most atoms whose size is within `limit`; sizes grow with the number of atoms. `what` is for the error."""
    low, high = 0, adapter.atom_count
    while low < high:
        middle = (low + high + 1) // 2
        if size(make(middle).compact()) <= limit:
            low = middle
        else:
            high = middle - 1
    if low == 0:
        raise SelectionError(f"not one atom fits into {limit:,.0f} {what}; ask for a larger share.")
    return make(low)


def greedy_atoms(adapter: SparseAdapter, count: int) -> SparseAdapter:
    """The first `count` atoms of the greedy order, refitted."""
    return prune(adapter, select(adapter, Selection(top=count, order="greedy"), refit=True), refit=True)


@torch.no_grad()
def collected(adapter: SparseAdapter, backend: Backend, config: TrainConfig, sets: list[TrainingSet]) -> dict[str, SiteSamples]:
    """Inputs and updates at each site on the concept's rows, and inputs on quiet rows."""
    concept: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    quiet: dict[str, list[torch.Tensor]] = {}
    kind = torch.zeros(0)

    def observe(key: str, site: SparseSite, x: torch.Tensor, c: torch.Tensor, update: torch.Tensor, o: torch.Tensor) -> None:
        rows = kind == CONCEPT
        concept.setdefault(key, []).append((x[rows].flatten(0, -2).float().cpu(), update[rows].flatten(0, -2).float().cpu()))
        quiet.setdefault(key, []).append(x[~rows].flatten(0, -2).float().cpu())

    generator = torch.Generator().manual_seed(config.seed + 5)
    with adapter.attach(backend.denoiser, component=backend.component) as attachment, attachment.tap(observe):
        for _ in range(SAMPLE_BATCHES):
            batch = draw_batch(config, backend, sets, generator).to(backend.device, backend.dtype)
            kind = batch.kind
            backend.predict(backend.add_noise(batch.latents, batch.noise, batch.levels), batch.levels, batch.conditioning)
    return {
        key: SiteSamples(torch.cat([x for x, _ in parts]), torch.cat([u for _, u in parts]), None, torch.cat(quiet[key]))
        for key, parts in concept.items()
    }


def training_sets(
    config: TrainConfig, backend: Backend, adapter: SparseAdapter, data: ConceptData | None, report: Callbacks
) -> list[TrainingSet]:
    """The concept's rows from images, or from the whole adapter's own pictures; and quiet rows."""
    if data is not None:
        return build_sets(config, backend, data, Processes(backend.device), report)[0]
    rows = own_rows(adapter, backend, captions_of(adapter), report, config.seed)
    return own_sets(rows, backend, config, report)


def heal(
    small: SparseAdapter, whole: SparseAdapter, backend: Backend, config: TrainConfig, sets: list[TrainingSet], steps: int,
    report: Callbacks, name: str,
) -> None:  # fmt: skip
    """Distil `whole` into `small`, in place."""
    if steps == 0:
        return
    small.trainable().to(backend.device)
    learned = [p for key, p in small.trainable_parameters() if not key.endswith("threshold")]
    optimiser = torch.optim.Adam(learned, lr=HEAL_RATE, betas=config.betas)
    generator = torch.Generator().manual_seed(config.seed + 9)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = HEAL_RATE * heal_factor(step, steps)
        loss = _squared_errors(small, whole, backend, config, sets, generator)[0]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, config.max_grad_norm)
        optimiser.step()
        report.on_progress(name, step + 1, steps)
    small.requires_grad_(False)


@torch.no_grad()
def distance(small: SparseAdapter, whole: SparseAdapter, backend: Backend, config: TrainConfig, sets: list[TrainingSet]) -> float:
    """Squared error of `small`'s predictions for the concept's rows, relative to the base's."""
    generator = torch.Generator().manual_seed(config.seed + 13)
    sums = [0.0, 0.0]
    for _ in range(CHECK_BATCHES):
        for index, value in enumerate(_squared_errors(small, whole, backend, config, sets, generator, against_base=True)[1:]):
            sums[index] += float(value)
    return sums[0] / max(sums[1], 1e-12)


def _squared_errors(
    small: SparseAdapter, whole: SparseAdapter, backend: Backend, config: TrainConfig, sets: list[TrainingSet], generator: torch.Generator,
    against_base: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """(over all rows, small against whole on the concept's rows, base against whole on them)."""
    batch = draw_batch(config, backend, sets, generator).to(backend.device, backend.dtype)
    noisy = backend.add_noise(batch.latents, batch.noise, batch.levels)
    rows = batch.kind == CONCEPT
    with torch.no_grad():
        base = backend.predict(noisy, batch.levels, batch.conditioning).float() if against_base else None
        with whole.attach(backend.denoiser, component=backend.component):
            wanted = backend.predict(noisy, batch.levels, batch.conditioning).float()
    with small.attach(backend.denoiser, component=backend.component):
        made = backend.predict(noisy, batch.levels, batch.conditioning).float()
    errors = (made - wanted).square()
    missing = torch.zeros(()) if base is None else (base[rows] - wanted[rows]).square().mean()
    return errors.mean(), errors[rows].mean(), missing
