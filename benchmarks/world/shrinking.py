"""E2, smaller files: ours shrunk with healing, beside LoRA cut by SVD or by magnitude, cut and healed, and LoRA trained at that size, at equal parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...evaluation.peers import TrainedPeer, applied_peer, heal_peer
from ...evaluation.smaller_lora import CUTS
from ...sparsedict_core import SparseAdapter
from ...tools.make_demo_images import concept_data
from ...trainer import TrainConfig
from ...trainer.callbacks import Callbacks
from ...trainer.distribution import Processes
from ...trainer.shrink import HEAL_QUIET_SAMPLES, HEAL_STEPS, shrink
from ...trainer.training_sets import build_sets
from ..runs import Run, digest_of_set_fields
from .merging import setting_of
from .plans import PARAMETERS
from .training import World, fit

SHARES = (0.50, 0.25, 0.10, 0.03, 0.02)
LEAST_OF_LORA = 0.03  # no LoRA on all sites is smaller: of rank 1 it has 3.7 % of the parameters
# What is cut, by the name in the table: a method of E1, and how it gets small.
WAYS: dict[str, tuple[str, str]] = {
    "sparse dictionary, shrunk": ("sparse dictionary", "shrink"),
    "LoRA, cut by SVD": ("LoRA", "svd"),
    "LoRA, cut by magnitude": ("LoRA", "magnitude"),
    "LoRA, cut by SVD and healed": ("LoRA", "heal"),
    "LoRA, trained at that size": ("LoRA", "small"),
    "LoRA + quiet term, cut by SVD": ("LoRA + quiet term", "svd"),
    "LoRA + quiet term, cut by magnitude": ("LoRA + quiet term", "magnitude"),
    "LoRA + quiet term, cut by SVD and healed": ("LoRA + quiet term", "heal"),
    "LoRA + quiet term, trained at that size": ("LoRA + quiet term", "small"),
}


@dataclass(frozen=True)
class ShrinkRun:
    """One method made small one way."""

    way: str
    share: float  # of the parameters
    concept: str
    seed: int
    setting: str  # JSON, as in E4
    steps: int | None = None  # of the whole one's training, and half as many of healing; None: as many as in E1, and as `shrink` heals

    @property
    def key(self) -> str:
        return f"{self.concept}-{self.seed}-{digest_of_set_fields(self)}"

    @property
    def heal_steps(self) -> int:
        return HEAL_STEPS if self.steps is None else self.steps // 2

    def whole(self) -> Run:
        """What is made small."""
        run = Run(**json.loads(self.setting), concept=self.concept, seed=self.seed)
        return run if self.steps is None else replace(run, steps=self.steps)


def shrink_runs(
    winners: Mapping[str, Mapping[str, Any]], concepts: Sequence[str], seeds: int, shares: Sequence[float] = SHARES, steps: int | None = None
) -> list[ShrinkRun]:
    return [
        ShrinkRun(way, share, concept, seed, setting_of(winners[label]), steps)
        for seed in range(seeds)
        for concept in concepts
        for way, (label, how) in WAYS.items()
        for share in shares
        if how == "shrink" or share >= LEAST_OF_LORA
    ]


def measure(run: ShrinkRun, world: World) -> dict[str, Any]:
    """Fidelity and drift of the small one, and of the whole one that it comes from."""
    suite, how = world.suite(run.concept, "report"), WAYS[run.way][1]
    member = run.whole()
    whole = fit(member, world)
    parameters = round(run.share * PARAMETERS)
    with whole.applied(world):
        full = suite.concept()[0]
    if how == "shrink":
        assert isinstance(whole.model, SparseAdapter)
        # A base as small as this one has files whose header alone is 2 % of them, so parameters are counted, as LoRA's are.
        small = shrink(
            whole.model, world.backend, run.share, heal_steps=run.heal_steps, data=concept_data(run.concept), callbacks=Callbacks(),
            seed=run.seed, unit="parameters",
        )  # fmt: skip
        with small.adapter.attach(world.backend.denoiser, component="transformer"):
            score = suite.score()
        found = {"parameters": small.adapter.parameter_count(), "method": small.method}
    elif how in (*CUTS, "heal"):
        assert isinstance(whole.model, TrainedPeer)
        smaller = CUTS["svd" if how == "heal" else how](whole.model, world.size("lora", parameters))
        if how == "heal":
            config = TrainConfig(cache=world.cache, seed=run.seed, quiet_samples=HEAL_QUIET_SAMPLES)
            sets, _ = build_sets(config, world.backend, concept_data(run.concept), Processes(world.backend.device), Callbacks())
            smaller = heal_peer(smaller, whole.model, world.backend, config, sets, run.heal_steps)
        with applied_peer(world.backend, smaller):
            score = suite.score()
        found = {"parameters": smaller.parameters}
    else:
        trained = fit(replace(member, parameters=parameters), world)
        with trained.applied(world):
            score = suite.score()
        found = {"parameters": trained.parameters}
    return {**score.to_dict(), "whole_fidelity": round(full, 4), "kept": round(score.concept_fidelity / max(full, 1e-9), 4), **found}
