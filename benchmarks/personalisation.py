"""E1 and E2 on the embedded base's world: train one method on one concept, measure fidelity, prompt fidelity and drift."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..demo_model.glyphs import GLYPHS
from ..evaluation.lora import applied_lora, rank_for, train_lora
from ..evaluation.machine import machine, peak_memory_bytes
from ..evaluation.pruning import pruned_scores
from ..evaluation.suite import Suite
from ..sparsedict_core.atomic_write import write_atomically
from ..tools.make_demo_images import concept_data
from ..trainer import PRESETS, TrainConfig, train
from ..trainer.backends.demo import DemoBackend
from ..trainer.callbacks import Callbacks
from ..trainer.distribution import Processes
from ..trainer.loop import build_sets
from .runs import RESULTS, Run, result_path

SUITE_SEEDS = {"search": 700, "report": 500}
SEARCH_PROMPTS = 2  # every second prompt is enough for choosing a rate
SHARES = (0.5, 0.25, 0.10, 0.05, 0.02)


class World:
    """The base and the measures, loaded once for a queue of runs."""

    def __init__(self, cache: Path) -> None:
        self.backend, self.cache = DemoBackend.load(), cache
        self._suites: dict[tuple[str, str], Suite] = {}

    def suite(self, concept: str, split: str) -> Suite:
        if (concept, split) not in self._suites:
            suite = Suite(self.backend.pipeline, GLYPHS[concept], SUITE_SEEDS[split])
            if split == "search":
                suite.prompts = suite.prompts[::SEARCH_PROMPTS]
            self._suites[concept, split] = suite
        return self._suites[concept, split]


def configured(run: Run, world: World, out: Path) -> TrainConfig:
    config = TrainConfig(
        **{**PRESETS["concept"], "steps": run.steps, "seed": run.seed, "out": out, "overwrite": True, "checkpoint_every": 10**6,
           "cache": world.cache, "placeholder": run.concept, **run.settings}
    )  # fmt: skip
    if run.quiet_weight is not None:
        config = replace(config, quiet_weight=run.quiet_weight)
    return replace(config, learning_rate=run.learning_rate) if run.learning_rate is not None else config


def measure(run: Run, world: World, parameters: int) -> dict[str, Any]:
    """Train and measure one run. `parameters`: what a peer's rank is chosen for."""
    suite, data = world.suite(run.concept, run.split), concept_data(run.concept)
    began = time.time()
    with tempfile.TemporaryDirectory() as folder:
        config = configured(run, world, Path(folder) / "adapter.safetensors")
        if run.method == "ours":
            result = train(config, world.backend, data, Callbacks())
            adapter = result.adapter
            with adapter.attach(world.backend.denoiser, component="transformer"):
                score = suite.score().to_dict()
            found = {**score, "parameters": adapter.parameter_count(), "train_seconds": result.seconds}
            if run.split == "report":
                found["pruning"] = [
                    {"order": order, "share": share, "atoms": kept.kept, **score.to_dict()}
                    for order, share, kept, score in pruned_scores(suite, world.backend.denoiser, adapter, SHARES)
                ]
        else:
            sets, _ = build_sets(config, world.backend, data, Processes(world.backend.device), Callbacks())
            assert run.learning_rate is not None, "a peer's rate is searched"
            lora = train_lora(config, world.backend, sets, rank_for(parameters, world.backend), run.learning_rate)
            with applied_lora(world.backend, lora):
                score = suite.score().to_dict()
            found = {**score, "parameters": lora.parameters, "train_seconds": lora.seconds}
    return {
        "run": asdict(run), **found, "base_fingerprint": world.backend.fingerprint(), "wall_seconds": time.time() - began,
        "peak_memory_bytes": peak_memory_bytes(), "machine": machine(),
    }  # fmt: skip


def work_through(table: str, runs: list[Run], world: World, parameters: int, results: Path = RESULTS) -> list[dict[str, Any]]:
    """Do the runs that have no result for this base yet, one file each; returns all of them."""
    done = []
    fingerprint = world.backend.fingerprint()
    for number, run in enumerate(runs, 1):
        path = result_path(table, run, results)
        found = json.loads(path.read_text()) if path.exists() else None
        if found is None or found["base_fingerprint"] != fingerprint:
            found = measure(run, world, parameters)
            write_atomically(path, (json.dumps(found, indent=1) + "\n").encode())
        print(f"{table} {number}/{len(runs)} {run.key}: fidelity {found['concept_fidelity']:.3f}, drift {found['drift']:.3f}", flush=True)
        done.append(found)
    return done
