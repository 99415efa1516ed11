"""A merge that was taught who is asked for: composed adapters, healed with the base at hand.

Side by side, each adapter also answers to the other's word, which its training never held. Healing distils: on each member's own
pictures and captions the merge learns to predict what that member predicts alone, on quiet rows what the base predicts. Where both
words are asked for, it learns both changes at once, the second held back where the first is at work. Only the members' tensors change,
no atom and no address. Our choice (docs/method.md).

For concepts. A style acts on prompts without its word too, which healing takes for a fault: compose it plainly (benchmarks, E4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.compose import compose
from .backends.base import Backend
from .batches import CONCEPT, Batch, TrainingSet, draw_batch
from .calibrate import calibrate
from .callbacks import Callbacks
from .config import TrainConfig
from .forward import check_gradients
from .healing import heal
from .memory import out_of_memory_explained
from .own_pictures import PICTURES, captions_of, drawn_at_once, own_rows, own_sets
from .progress import ConsoleProgress

HEAL_STEPS = 100
HEAL_RATE = 2e-3
QUIET_SAMPLES = 48


@dataclass(frozen=True)
class Part:
    """A member: its name, its adapter, its strength, and captions to draw its own pictures for (None: the file's)."""

    name: str
    adapter: SparseAdapter
    strength: float = 1.0
    captions: Sequence[str] | None = None


@dataclass(frozen=True)
class Lesson:
    """Rows that ask for a member, or for a member and another's word."""

    part: Part
    other: Part | None
    sets: list[TrainingSet]


def merge(
    parts: Sequence[Part], backend: Backend, heal_steps: int = HEAL_STEPS, callbacks: Callbacks | None = None, seed: int = 0,
    pictures: int = PICTURES, quiet_samples: int = QUIET_SAMPLES, batch: TrainConfig | None = None,
) -> SparseAdapter:  # fmt: skip
    """The members in one adapter in which each keeps to its own word; `pictures` are drawn by each member and pair.

    Of `batch` its size, its parts and whether blocks are recomputed count. Raises CompositionError as `compose` does, TrainingError
    without words and where memory runs out.
    """
    report = callbacks or ConsoleProgress()
    merged = compose([(part.name, part.adapter, part.strength) for part in parts])
    if heal_steps == 0 or len(parts) < 2:
        return merged
    check_gradients(backend)
    config = replace(batch or TrainConfig(), seed=seed, quiet_samples=quiet_samples)
    with out_of_memory_explained(config, healing=True):
        teach(merged, parts, backend, heal_steps, config, report, pictures)
    merged.add_step({"operation": "heal", "steps": heal_steps})
    return merged


def teach(
    merged: SparseAdapter, parts: Sequence[Part], backend: Backend, steps: int, config: TrainConfig, report: Callbacks, pictures: int
) -> None:
    """Heal the composition, in place."""
    seed = config.seed
    alone = [lesson(part, None, part.adapter, part.strength, backend, config, report, seed + number, pictures) for number, part in enumerate(parts)]
    pairs = [(one, other) for one in parts for other in parts if one is not other and other.adapter.trigger_words]
    both = [
        lesson(one, other, compose([("a", one.adapter, one.strength), ("b", other.adapter, other.strength)]), 1.0, backend, config, report, seed + 50 + number, pictures)
        for number, (one, other) in enumerate(pairs)
    ]

    def gradients(step: int, generator: torch.Generator) -> None:
        # One pair a step, in turn: with many members there are many pairs.
        now = alone + ([both[step % len(both)]] if both else [])
        for one in now:
            for rows in draw_batch(config, backend, one.sets, generator).to(backend.device, backend.dtype).parts(config.gradient_accumulation):
                learn(merged, one, backend, rows, len(now) * config.gradient_accumulation)

    heal(merged, backend, config, gradients, steps, HEAL_RATE, seed + 21, report, "healing the merge")
    # What matters has changed: on the members' own pictures, all alike.
    calibrate(config, backend, merged, [rows for one in alone for rows in one.sets])


def lesson(
    part: Part, other: Part | None, drawn_by: SparseAdapter, strength: float, backend: Backend, config: TrainConfig, report: Callbacks, seed: int,
    pictures: int,
) -> Lesson:  # fmt: skip
    """Pictures that `drawn_by` draws for the member's captions, with the other's word behind them; and quiet rows."""
    captions = list(part.captions or captions_of(part.adapter))
    if other is not None:
        captions = [f"{text} {word}" for text in captions for word in other.adapter.trigger_words]
    rows = own_rows(drawn_by, backend, captions, report, seed, strength, pictures, drawn_at_once(config))
    return Lesson(part, other, own_sets(rows, backend, config, report))


def learn(merged: SparseAdapter, taught: Lesson, backend: Backend, batch: Batch, parts: int) -> None:
    """Add the gradient of the mean squared error over the rows, as one of `parts`: the member's own against what it should be, quiet
    rows against the base."""
    noisy = backend.add_noise(batch.latents, batch.noise, batch.levels)

    def predicted(part: Part) -> Tensor:
        with part.adapter.attach(backend.denoiser, part.strength, component=backend.component):
            return backend.predict(noisy, batch.levels, batch.conditioning).float()

    with torch.no_grad():
        base = backend.predict(noisy, batch.levels, batch.conditioning).float()
        wanted = predicted(taught.part)
        if taught.other is not None:
            wanted = wanted + held_back(wanted - base, predicted(taught.other) - base)
    own = (batch.kind == CONCEPT).to(base.device).view(-1, *[1] * (base.ndim - 1))
    # Attached until the backward is done, where blocks are recomputed.
    with merged.attach(backend.denoiser, component=backend.component):
        made = backend.predict(noisy, batch.levels, batch.conditioning).float()
        ((made - torch.where(own, wanted, base)).square().mean() / parts).backward()


def held_back(first: Tensor, second: Tensor) -> Tensor:
    """`second` (B, c, …), less where `first` changes more than it does on average over the picture."""
    at_work = first.square().mean(1, keepdim=True)
    usual = at_work.flatten(1).mean(1).view(-1, *[1] * (first.ndim - 1))
    return second * usual / (at_work + usual).clamp(min=1e-12)
