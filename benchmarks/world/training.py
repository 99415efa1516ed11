"""Trains what a run asks for, ours or a peer, once: the result is kept in the cache folder for the tables that use it again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialised

from ...evaluation.likeness import LikenessMeter
from ...evaluation.peers import TrainedPeer, applied_peer, size_for, train_peer
from ...evaluation.suite import Suite
from ...sparsedict_core import SparseAdapter, load, save
from ...sparsedict_core.atomic_write import write_atomically
from ...tools.make_demo_images import concept_data
from ...trainer import PRESETS, ConceptData, TrainConfig, train
from ...trainer.backends.demo import DemoBackend
from ...trainer.callbacks import Callbacks
from ...trainer.distribution import Processes
from ...trainer.training_sets import build_sets
from ..runs import Run
from .plans import PARAMETERS

SUITE_SEEDS = {"search": 700, "report": 500}
LIKENESS_SEED = 520
SEARCH_PROMPTS = 2  # every second prompt is enough for choosing a rate
FEW: dict[str, Any] = {"others": 12, "grounds": ("sky", "night"), "steps": 6}  # a quarter of a suite's pictures, in half the steps
FEW_QUIET_SAMPLES = 32


class World:
    """The base and the measures, loaded once for a queue of runs."""

    def __init__(self, cache: Path, few: bool = False) -> None:
        """`few`: measured at fewer points, on a quarter of the pictures, to see that all works."""
        self.backend, self.cache, self.few = DemoBackend.load(), cache, few
        self._suites: dict[tuple[str, str], Suite] = {}
        self._meters: dict[str, LikenessMeter] = {}
        self._sizes: dict[tuple[str, int], int] = {}
        self.read_alone: dict[tuple, float] = {}  # what members of merges do by themselves (E4)

    def some(self, values: Sequence[Any]) -> Sequence[Any]:
        """The points of a table's axis that are measured."""
        return values[::2] if self.few else values

    def suite(self, concept: str, split: str) -> Suite:
        """A concept's prompts and noise, with the base's own pictures."""
        if (concept, split) not in self._suites:
            suite = self.suite_of(concept, SUITE_SEEDS[split])
            if split == "search":
                suite.prompts = suite.prompts[::SEARCH_PROMPTS]
            self._suites[concept, split] = suite
        return self._suites[concept, split]

    def suite_of(self, concept: str, seed: int) -> Suite:
        """A new one."""
        return Suite(self.backend.pipeline, concept, seed, **(FEW if self.few else {}))

    def likeness(self, concept: str) -> LikenessMeter:
        """A concept's pictures in a learned embedding, on the report's prompts."""
        if concept not in self._meters:
            self._meters[concept] = LikenessMeter(self.suite(concept, "report"), LIKENESS_SEED)
        return self._meters[concept]

    def size(self, method: str, parameters: int) -> int:
        """A peer's size for as many parameters."""
        if (method, parameters) not in self._sizes:
            self._sizes[method, parameters] = size_for(method, parameters, self.backend)
        return self._sizes[method, parameters]


@dataclass(frozen=True)
class Fitted:
    """What a run trained, and what that cost."""

    model: SparseAdapter | TrainedPeer
    parameters: int
    seconds: float

    @contextmanager
    def applied(self, world: World, strength: float = 1.0) -> Iterator[None]:
        """On the base within the block."""
        if isinstance(self.model, SparseAdapter):
            with self.model.attach(world.backend.denoiser, strength, component="transformer"):
                yield
        else:
            with applied_peer(world.backend, self.model, strength):
                yield


def configured(run: Run, world: World, out: Path) -> TrainConfig:
    """The trainer's settings of a run; the schedule and the quiet rows are every method's."""
    config = TrainConfig(
        **{**PRESETS[run.preset], "steps": run.steps, "seed": run.seed, "out": out, "overwrite": True, "checkpoint_every": 10**6, "keep_checkpoints": 0,
           "cache": world.cache, "placeholder": run.concept, **({"quiet_samples": FEW_QUIET_SAMPLES} if world.few else {}), **run.settings}
    )  # fmt: skip
    if run.quiet_weight is not None:
        config = replace(config, quiet_weight=run.quiet_weight)
    return replace(config, learning_rate=run.learning_rate) if run.learning_rate is not None else config


def fit(run: Run, world: World, data: ConceptData | None = None) -> Fitted:
    """Train a run, or take it from the cache."""
    folder = world.cache / "trained"
    kept = folder / f"{run.key}-{world.backend.fingerprint()[:12]}.safetensors"
    if kept.exists():
        return _read(kept, run)
    folder.mkdir(parents=True, exist_ok=True)
    data = data or concept_data(run.concept)
    with tempfile.TemporaryDirectory() as scratch:
        config = configured(run, world, Path(scratch) / "adapter.safetensors")
        if run.method == "ours":
            result = train(config, world.backend, data, Callbacks())
            result.adapter.metadata["benchmark_seconds"] = result.seconds
            save(result.adapter, kept, dtype=torch.float32, overwrite=True)
            return Fitted(result.adapter, result.adapter.parameter_count(), result.seconds)
        assert run.learning_rate is not None, "a peer's rate is searched"
        sets, _ = build_sets(config, world.backend, data, Processes(world.backend.device), Callbacks())
        peer = train_peer(config, world.backend, sets, run.method, world.size(run.method, run.parameters or PARAMETERS), run.learning_rate)
    about = {"size": peer.size, "parameters": peer.parameters, "seconds": peer.seconds}
    write_atomically(kept, serialised({name: weight.contiguous() for name, weight in peer.weights.items()}, {"peer": json.dumps(about)}))
    return Fitted(peer, peer.parameters, peer.seconds)


def _read(path: Path, run: Run) -> Fitted:
    if run.method == "ours":
        adapter = load(path)
        return Fitted(adapter, adapter.parameter_count(), float(adapter.metadata["benchmark_seconds"]))
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["peer"])
    peer = TrainedPeer(run.method, about["size"], load_file(path), about["parameters"], run.learning_rate or 0.0, about["seconds"], [])
    return Fitted(peer, peer.parameters, peer.seconds)
