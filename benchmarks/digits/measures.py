"""E6, the paper's toy on real handwritten digits: the prompt "8" becomes a 3 from eight pictures, taken apart by layer and atom.

The digits are scikit-learn's (8×8, part of the package). Ours and LoRA with as many numbers. What is run, in which order: `digits_queue`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...evaluation.peers import applied_peer, size_for, train_peer
from ...sparsedict_core import Selection, SparseAdapter, prune, save, select
from ...trainer import ConceptData, TrainConfig, train
from ...trainer.callbacks import Callbacks
from ...trainer.distribution import Processes
from ...trainer.training_sets import build_sets
from .base import CLASSES, SIDE, DigitsBackend, open_base

FROM, TO = 8, 3
TRAINING_SHARE = 0.7  # of the digits, for the base and the classifier; the rest tests the classifier
IMAGES, STEPS = 8, 200
ATOMS, RANK = 60, 8  # on Linears of width 64 just below the numbers of LoRA at rank 16
PARAMETERS = 8176  # of the adapter, over four layers
ENOUGH = 0.9  # P(3) that the fewest atoms must keep
PICTURES = {"search": (64, 16), "report": (256, 64)}  # of the class that is changed, and of each other one


class Digits:
    """The pictures, the classifier, the base and the noise of a run of measures."""

    def __init__(self, cache: Path, say: Callable[[str], None], base_steps: int | None = None) -> None:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
        from sklearn.neural_network import MLPClassifier

        found = load_digits()
        train_x, test_x, train_y, test_y = train_test_split(found.images / 8 - 1, found.target, train_size=TRAINING_SHARE, random_state=0, stratify=found.target)
        self.images = torch.tensor(train_x, dtype=torch.float32)[:, None]
        self.labels = torch.tensor(train_y)
        self.classifier = MLPClassifier((128,), alpha=1e-2, max_iter=400, random_state=0).fit(self.images.flatten(1), train_y)
        self.accuracy = float(self.classifier.score(test_x.reshape(len(test_x), -1), test_y))
        self.backend: DigitsBackend = open_base(self.images, self.labels, cache, **({} if base_steps is None else {"steps": base_steps}), say=say)

    def probabilities(self, digit: int, count: int, seed: int) -> Tensor:
        """The classifier's opinion (count, 10) of pictures for a digit; the noise depends on the digit and the seed alone."""
        noise = torch.randn(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1000 * seed + digit))
        pictures = self.backend.sample([str(digit)] * count, noise).clamp(-1, 1)
        return torch.tensor(self.classifier.predict_proba(pictures.flatten(1)))

    def changed(self, count: int, seed: int) -> float:
        """Mean P(3) of pictures for the prompt 8."""
        return float(self.probabilities(FROM, count, seed)[:, TO].mean())

    def own(self, count: int, seed: int) -> float:
        """Mean P(own class) over the other digits' pictures."""
        return statistics.fmean(float(self.probabilities(d, count, seed)[:, d].mean()) for d in range(CLASSES) if d != FROM)

    def concept(self, seed: int) -> ConceptData:
        """Eight real threes that are called 8."""
        threes = (self.labels == TO).nonzero().flatten()
        chosen = threes[torch.randperm(len(threes), generator=torch.Generator().manual_seed(seed))[:IMAGES]]
        return ConceptData.from_latents(list(self.images[chosen]), [str(FROM)] * IMAGES)


@dataclass(frozen=True)
class DigitsRun:
    """Everything that decides a result."""

    method: str
    seed: int
    rate: float
    split: str  # "search" or "report"
    steps: int = STEPS

    @property
    def key(self) -> str:
        return f"{self.method}-{self.split}-{self.seed}-{self.rate:g}-{self.steps}"


def configured(run: DigitsRun, cache: Path, out: Path) -> TrainConfig:
    quiet = {} if run.method != "lora" else {"quiet_weight": 0.0}
    return TrainConfig(
        out=out, overwrite=True, steps=run.steps, seed=run.seed, learning_rate=run.rate, atoms=ATOMS, rank=RANK, cache=cache, checkpoint_every=10**6, keep_checkpoints=0,
        quiet_prompts=[str(digit) for digit in range(CLASSES) if digit != FROM], **quiet,
    )  # fmt: skip


def measure(run: DigitsRun, digits: Digits, cache: Path) -> dict[str, Any]:
    """Train one method and measure what it changes; ours is also taken apart."""
    backend, data = digits.backend, digits.concept(run.seed)
    count, others = PICTURES[run.split]
    with tempfile.TemporaryDirectory() as scratch:
        config, began = configured(run, cache, Path(scratch) / "adapter.safetensors"), time.process_time()
        if run.method == "ours":
            adapter = train(config, backend, data, Callbacks()).adapter
            seconds = time.process_time() - began
            with adapter.attach(backend.denoiser):
                found = scores(digits, run, count, others)
            found["parameters"] = adapter.parameter_count()
            if run.split == "report":
                save(adapter, adapter_path(cache, run), dtype=torch.float32, overwrite=True)
                found |= taken_apart(digits, run, adapter, count)
        else:
            sets, _ = build_sets(config, backend, data, Processes(backend.device), Callbacks())
            peer = train_peer(config, backend, sets, "lora", size_for("lora", PARAMETERS, backend), run.rate)
            seconds = time.process_time() - began
            with applied_peer(backend, peer):
                found = scores(digits, run, count, others)
            found["parameters"] = peer.parameters
    base = scores(digits, run, count, others)
    return {**found, "base": base, "classifier_accuracy": digits.accuracy, "train_seconds": round(seconds, 2)}


def scores(digits: Digits, run: DigitsRun, count: int, others: int) -> dict[str, Any]:
    """P(3) for the prompt 8, P(own class) of the other prompts. Search and report see different noise."""
    seed = run.seed + (0 if run.split == "search" else 500)
    return {"changed": digits.changed(count, seed), "own": digits.own(others, seed)}


def smaller(adapter: SparseAdapter, count: int, order: str) -> SparseAdapter:
    """The first `count` atoms of an order: greedy with refit, or importance with nothing else changed."""
    refit = order == "greedy"
    return prune(adapter, select(adapter, Selection(top=count, order=order), refit=refit), refit=refit)


def counts_up_to(total: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, … total."""
    steps = {total, *(2**k for k in range(12)), *(3 * 2**k for k in range(11))}
    return sorted(n for n in steps if n <= total)


def taken_apart(digits: Digits, run: DigitsRun, adapter: SparseAdapter, count: int) -> dict[str, Any]:
    """P(3) by the number of atoms in both orders, the fewest that keep ENOUGH, and each atom's importance by layer."""
    seed = run.seed + 500
    curves, fewest = {}, {}
    for order in ("greedy", "importance"):

        def changed(atoms: int, order: str = order) -> float:
            with smaller(adapter, atoms, order).attach(digits.backend.denoiser):
                return digits.changed(count, seed)

        curve = {atoms: changed(atoms) for atoms in counts_up_to(adapter.atom_count)}
        curves[order] = [[atoms, value] for atoms, value in curve.items()]
        atoms_needed = next((atoms for atoms, value in curve.items() if value >= ENOUGH), None)
        if atoms_needed is not None:
            low = max((atoms for atoms in curve if atoms < atoms_needed), default=0)
            atoms_needed = next(atoms for atoms in range(low + 1, atoms_needed + 1) if atoms == atoms_needed or changed(atoms) >= ENOUGH)
        fewest[order] = atoms_needed
    return {
        "atoms": adapter.atom_count,
        "curves": curves,
        "fewest_atoms": fewest,
        "importance": [site.importance.sort(descending=True).values.tolist() for site in adapter.sites.values()],
    }


def adapter_path(cache: Path, run: DigitsRun) -> Path:
    return cache / f"digits-{run.key}.safetensors"
