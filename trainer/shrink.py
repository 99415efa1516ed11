"""The smallest file at a wanted size: greedy order + refit, or folding into new atoms; then healing with the base at hand.

Healing distils: the small adapter learns to predict what the whole one predicts, on the concept's rows and on quiet rows. The
thresholds stay as they are. Both ways are healed alike and the one with the smaller error is kept. Our choice (docs/method.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.errors import SelectionError
from ..sparsedict_core.file_format import stored_size
from ..sparsedict_core.folding import SiteSamples, find_directions, fold_into_new_atoms
from ..sparsedict_core.greedy import has_moments
from ..sparsedict_core.prune import prune
from ..sparsedict_core.selection import describe, rank_atoms
from ..sparsedict_core.site import SparseSite
from .backends.base import Backend
from .batches import CONCEPT, Batch, TrainingSet, draw_batch
from .callbacks import Callbacks
from .config import TrainConfig
from .data import ConceptData
from .distribution import Processes
from .forward import check_gradients
from .healing import heal
from .memory import out_of_memory_explained
from .own_pictures import captions_of, drawn_at_once, own_rows, own_sets
from .progress import ConsoleProgress
from .training_sets import build_sets, pictures_of

HEAL_STEPS = 150
HEAL_RATE = 2e-3
HEAL_QUIET_SAMPLES = 48
SAMPLE_BATCHES = 4
CHECK_BATCHES = 4
TOKENS = 64  # of a row that folding sees at a site: all of the embedded base's; of large pictures all would not fit into any memory


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
    batch: TrainConfig | None = None,
) -> ShrinkResult:
    """An adapter whose file has at most `share` of the bytes of `adapter`'s (both without moments), or of its parameters by `unit`.

    Without images the whole adapter's own pictures for its trigger word are distilled. Of `batch` its size, its parts and whether
    blocks are recomputed count. Raises SelectionError for a share that no atom fits in, TrainingError where there are neither
    images nor a trigger word, and where memory runs out.
    """
    report = callbacks or ConsoleProgress()
    steps = HEAL_STEPS if heal_steps is None else heal_steps
    if steps:
        check_gradients(backend)
    if unit not in SIZES:
        raise SelectionError(f"a size is counted in {' or '.join(SIZES)}, not in {unit!r}.")
    size = SIZES[unit]
    whole = size(adapter)
    config, sets, samples = at_hand(adapter, backend, images, data, batch, seed, report)
    directions = find_directions(adapter, samples)
    ways = {"folding": Way(lambda count, fitted: fold_into_new_atoms(adapter, samples, count, directions, fitted), min(len(directions), adapter.atom_count))}
    if has_moments(adapter):
        order = rank_atoms(adapter, "greedy")
        ways = {"greedy": Way(partial(greedy_atoms, adapter, order), len(order)), **ways}
    else:
        report.on_warning("the file has no moments, so atoms cannot be taken in the greedy order; folding alone is tried.")
    found: list[tuple[float, str, SparseAdapter]] = []
    for method, way in ways.items():
        small = fitting(way, share * whole, size, f"{unit} ({method})")
        with out_of_memory_explained(config, healing=True):
            distil(small, adapter, backend, config, sets, steps, report, f"healing ({method})")
            found.append((distance(small, adapter, backend, config, sets), method, small))
    error, method, small = min(found, key=lambda entry: entry[0])
    small.compact()
    reached = size(small)
    others = "".join(f"; {name} would keep {1 - e:.1%}" for e, name, _ in found if name != method)
    text = (
        f"{method}: {small.atom_count} atoms, {reached:,} of {whole:,} {unit} ({reached / whole:.1%}, moments not counted), "
        f"{steps} healing steps; keeps {max(0.0, 1 - error):.1%} of what the adapter changes in the model's predictions{others}"
    )
    small.add_step({"operation": "shrink", "method": method, "error": round(error, 6)})
    return ShrinkResult(small, method, reached, unit, reached / whole, error, text)


def size_of(adapter: SparseAdapter) -> int:
    """Bytes of the file, without moments."""
    return stored_size(adapter, moments=False)


#: What a size is counted in.
SIZES: dict[str, Callable[[SparseAdapter], int]] = {"bytes": size_of, "parameters": SparseAdapter.parameter_count}


@dataclass(frozen=True)
class Way:
    """One way to fewer atoms."""

    make: Callable[[int, bool], SparseAdapter]  # with so many atoms; not fitted, it has their shapes alone
    most: int


def fitting(way: Way, limit: float, size: Callable[[SparseAdapter], int], what: str) -> SparseAdapter:
    """The adapter with the most atoms whose size is within `limit`; sizes grow with the number of atoms. `what` is for the error."""
    low, high = 0, way.most
    while low < high:
        middle = (low + high + 1) // 2
        if size(way.make(middle, False).compact()) <= limit:
            low = middle
        else:
            high = middle - 1
    # What is written of the fit takes some bytes too.
    while low > 0 and size((small := way.make(low, True)).clone().compact()) > limit:
        low -= 1
    if low == 0:
        raise SelectionError(f"not one atom fits into {limit:,.0f} {what}; ask for a larger share.")
    return small


def greedy_atoms(adapter: SparseAdapter, order: Sequence[tuple[str, int]], count: int, fitted: bool = True) -> SparseAdapter:
    """The first `count` atoms of the greedy order, refitted where `fitted`."""
    masks = {key: torch.zeros(site.atoms, dtype=torch.bool) for key, site in adapter.sites.items()}
    for key, row in order[:count]:
        masks[key][row] = True
    if fitted:
        return prune(adapter, describe(adapter, masks, "greedy", refit=True), refit=True)
    small = adapter.clone()
    for key, site in small.sites.items():
        site.keep(masks[key])
        site.fold()
    return small


def at_hand(
    adapter: SparseAdapter, backend: Backend, images: str | Path | None, data: ConceptData | None, batch: TrainConfig | None, seed: int, report: Callbacks
) -> tuple[TrainConfig, list[TrainingSet], dict[str, SiteSamples]]:
    """What the whole adapter is held against: settings, rows, and samples at each site. Raises TrainingError where memory runs out."""
    if data is None and images is not None:
        data = pictures_of(adapter, images, backend)
    config = replace(batch or TrainConfig(), seed=seed, quiet_samples=HEAL_QUIET_SAMPLES)
    with out_of_memory_explained(config, healing=True):
        sets = training_sets(config, backend, adapter, data, report)
        return config, sets, collected(adapter, backend, config, sets)


@torch.no_grad()
def collected(adapter: SparseAdapter, backend: Backend, config: TrainConfig, sets: list[TrainingSet]) -> dict[str, SiteSamples]:
    """Inputs and updates at each site on the concept's rows, and inputs on quiet rows; of larger pictures TOKENS of each row, by chance."""
    concept: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    quiet: dict[str, list[torch.Tensor]] = {}
    kind = torch.zeros(0)
    chance = torch.Generator().manual_seed(config.seed + 6)

    def observe(key: str, site: SparseSite, x: torch.Tensor, c: torch.Tensor, update: torch.Tensor, o: torch.Tensor) -> None:
        rows = kind == CONCEPT
        x, update = few_tokens([x, update], chance)
        # In the type that the base computes in, as fp32 would be twice as much of the same numbers.
        concept.setdefault(key, []).append((x[rows].flatten(0, -2).cpu(), update[rows].flatten(0, -2).cpu()))
        quiet.setdefault(key, []).append(x[~rows].flatten(0, -2).cpu())

    generator = torch.Generator().manual_seed(config.seed + 5)
    with adapter.attach(backend.denoiser, component=backend.component) as attachment, attachment.tap(observe):
        for _ in range(SAMPLE_BATCHES):
            for batch in draw_batch(config, backend, sets, generator).to(backend.device, backend.dtype).parts(config.gradient_accumulation):
                kind = batch.kind
                backend.predict(backend.add_noise(batch.latents, batch.noise, batch.levels), batch.levels, batch.conditioning)
    return {
        key: SiteSamples(torch.cat([x for x, _ in parts]), torch.cat([u for _, u in parts]), None, torch.cat(quiet[key]))
        for key, parts in concept.items()
    }


def few_tokens(values: list[torch.Tensor], generator: torch.Generator) -> list[torch.Tensor]:
    """Values (B, ..., d) of the same tokens → (B, n, d): TOKENS of each row, drawn anew for each, or all where there are no more."""
    values = [value.reshape(len(value), -1, value.shape[-1]) for value in values]
    rows, tokens = values[0].shape[:2]
    if tokens <= TOKENS:
        return values
    chosen = torch.rand(rows, tokens, generator=generator).argsort(1)[:, :TOKENS].to(values[0].device)
    return [value.gather(1, chosen[..., None].expand(-1, -1, value.shape[-1])) for value in values]


def training_sets(
    config: TrainConfig, backend: Backend, adapter: SparseAdapter, data: ConceptData | None, report: Callbacks
) -> list[TrainingSet]:
    """The concept's rows from images, or from the whole adapter's own pictures; and quiet rows."""
    if data is not None:
        return build_sets(config, backend, data, Processes(backend.device), report)[0]
    rows = own_rows(adapter, backend, captions_of(adapter), report, config.seed, at_once=drawn_at_once(config))
    return own_sets(rows, backend, config, report)


def distil(
    small: SparseAdapter, whole: SparseAdapter, backend: Backend, config: TrainConfig, sets: list[TrainingSet], steps: int,
    report: Callbacks, name: str,
) -> None:  # fmt: skip
    """Distil `whole` into `small`, in place."""

    def gradients(step: int, generator: torch.Generator) -> None:
        for part in draw_batch(config, backend, sets, generator).to(backend.device, backend.dtype).parts(config.gradient_accumulation):
            noisy, wanted = _asked(whole, backend, part)
            # Attached until the backward is done, where blocks are recomputed.
            with small.attach(backend.denoiser, component=backend.component):
                made = backend.predict(noisy, part.levels, part.conditioning).float()
                ((made - wanted).square().mean() / config.gradient_accumulation).backward()

    if steps:
        heal(small, backend, config, gradients, steps, HEAL_RATE, config.seed + 9, report, name)


@torch.no_grad()
def distance(small: SparseAdapter, whole: SparseAdapter, backend: Backend, config: TrainConfig, sets: list[TrainingSet]) -> float:
    """Squared error of `small`'s predictions for the concept's rows, relative to the base's."""
    generator = torch.Generator().manual_seed(config.seed + 13)
    sums = [0.0, 0.0]
    for _ in range(CHECK_BATCHES):
        batch = draw_batch(config, backend, sets, generator).to(backend.device, backend.dtype)
        concept = int((batch.kind == CONCEPT).sum())
        for part in batch.parts(config.gradient_accumulation):
            rows = part.kind == CONCEPT
            if not bool(rows.any()):
                continue
            noisy, wanted = _asked(whole, backend, part)
            base = backend.predict(noisy, part.levels, part.conditioning).float()
            with small.attach(backend.denoiser, component=backend.component):
                made = backend.predict(noisy, part.levels, part.conditioning).float()
            for index, value in enumerate((made, base)):
                sums[index] += float((value[rows] - wanted[rows]).square().mean()) * (int(rows.sum()) / concept)
    return sums[0] / max(sums[1], 1e-12)


@torch.no_grad()
def _asked(whole: SparseAdapter, backend: Backend, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The noisy latents of a batch, and what `whole` predicts for them; each (B, c, h, w)."""
    noisy = backend.add_noise(batch.latents, batch.noise, batch.levels)
    with whole.attach(backend.denoiser, component=backend.component):
        return noisy, backend.predict(noisy, batch.levels, batch.conditioning).float()
