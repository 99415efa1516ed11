"""E1 and E2 on the embedded base's world: train one method on one concept, measure fidelity, prompt fidelity and drift."""

from __future__ import annotations

from typing import Any

from ...evaluation.pruning import pruned_scores
from ...sparsedict_core import SparseAdapter
from ..runs import Run
from .training import World, fit

SHARES = (0.5, 0.25, 0.10, 0.05, 0.02)


def measure(run: Run, world: World) -> dict[str, Any]:
    """Train and measure one run; ours is pruned as well, on the report's prompts."""
    suite, fitted = world.suite(run.concept, run.split), fit(run, world)
    with fitted.applied(world):
        found = suite.score().to_dict()
    found |= {"parameters": fitted.parameters, "train_seconds": fitted.seconds}
    if isinstance(fitted.model, SparseAdapter) and run.split == "report":
        found["pruning"] = [
            {"order": order, "share": share, "atoms": kept.kept, **score.to_dict()}
            for order, share, kept, score in pruned_scores(suite, world.backend.denoiser, fitted.model, world.some(SHARES))
        ]
    return found


def measure_likeness(run: Run, world: World) -> dict[str, Any]:
    """A learned embedding's view of what a run learned, beside the renderer's pictures and the bare base's."""
    meter, fitted = world.likeness(run.concept), fit(run, world)
    with fitted.applied(world):
        found = meter.read().to_dict()
    return {**found, "rendered": meter.rendered.to_dict(), "base": meter.base.to_dict()}
