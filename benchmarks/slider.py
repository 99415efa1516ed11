"""E5: is the share of atoms a good dial? Concept fidelity as atoms are added by importance, beside LoRA's strength from 0 to 1."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from ..evaluation.suite import spearman
from ..sparsedict_core import Selection, SparseAdapter, select
from .runs import Run
from .training import World, fit

PARTS = 10


def measure(run: Run, world: World) -> dict[str, Any]:
    """Fidelity at each of the dial's stops, Spearman's rank correlation, and the largest step as a share of the whole way."""
    suite, fitted = world.suite(run.concept, run.split), fit(run, world)
    rows = []
    for step in range(PARTS + 1):
        part = step / PARTS
        if isinstance(fitted.model, SparseAdapter):
            with fitted.model.attach(world.backend.denoiser, component="transformer") as attachment:
                kept = select(fitted.model, Selection(importance_share=part))
                attachment.set_gains(kept.gains())
                rows.append({"dial": part, "share": kept.kept / kept.total, "concept_fidelity": round(suite.concept()[0], 4)})
        else:
            with fitted.applied(world, part):
                rows.append({"dial": part, "concept_fidelity": round(suite.concept()[0], 4)})
    values = [row["concept_fidelity"] for row in rows]
    whole = max(values) - min(values)
    return {
        "spearman": round(spearman([row["dial"] for row in rows], values), 4),
        "largest_jump": round(max(abs(b - a) for a, b in pairwise(values)) / max(whole, 1e-9), 4),
        "rows": rows,
    }
