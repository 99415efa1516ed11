"""Learning in the host beside the command line: the same pictures, settings and seeds, measured on the same prompts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ...tools.make_demo_images import concept_data
from ..runs import Run
from ..world.plans import SEARCH_CONCEPTS
from ..world.training import World, configured, fit
from .cases import Case

SEEDS = 2
QUIET_WEIGHT = 0.03  # as E1 has it, whose files serve here too
CACHE = Path("out/benchmarks")


def learning_rows(case: Case, folder: Path, repeats: int) -> Iterator[dict[str, Any]]:
    """One row a concept and seed, of the embedded base: no other model here knows pictures."""
    if case.name != "demo":
        return
    with torch.inference_mode(False):
        world = World(CACHE)
        for concept in SEARCH_CONCEPTS:
            for seed in range(SEEDS):
                yield row(world, case, Run("ours", concept, seed, quiet_weight=QUIET_WEIGHT), folder)


def row(world: World, case: Case, run: Run, folder: Path) -> dict[str, Any]:
    """Both adapters are measured in the command line's pipeline; the host's was trained by the host's forward, sampler, CLIP and VAE."""
    from dataclasses import replace

    from ...comfyui_host.demo_base import load_vae
    from ...trainer.backends.comfyui import ComfyBackend, train_in_host
    from ...trainer.callbacks import Callbacks

    with torch.inference_mode():
        backend = ComfyBackend(case.patcher, case.clip, load_vae())
        config = replace(configured(run, world, folder / "learned.safetensors"), cache=folder)
        result = train_in_host(config, backend, lambda: concept_data(run.concept), Callbacks())
    suite, scores = world.suite(run.concept, run.split), []
    for adapter in (result.adapter, fit(run, world).model):
        adapter.requires_grad_(False)
        with adapter.attach(world.backend.denoiser, component="transformer"):
            scores.append(suite.score())
    names = ("host", "command_line")
    return {
        "what": "learning", "model": case.name, "concept": run.concept, "seed": run.seed, "steps": run.steps,
        **{f"{name}_{key}": round(getattr(score, key), 4) for name, score in zip(names, scores) for key in ("concept_fidelity", "drift")},
    }  # fmt: skip
