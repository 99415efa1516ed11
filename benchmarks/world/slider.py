"""E5: is the share of atoms a good dial? Concept fidelity as atoms are added, by importance and in the greedy order, beside strengths."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from ...evaluation.suite import Suite, spearman
from ...sparsedict_core import Selection, SparseAdapter, prune, select
from ..runs import Run
from .training import Fitted, World, fit

DIAL = [step / 10 for step in range(11)]
LEAST = 0.01  # the share that a log scale begins with
# By what is turned, in the tables' words.
DIALS = {
    "strength": "strength",
    "importance": "share of the importance",
    "greedy": "share of the atoms, log scale, greedy + refit",
}


def measure(run: Run, world: World) -> dict[str, Any]:
    """Fidelity at each stop of each dial: of a peer its strength, of ours also the two shares of atoms."""
    suite, fitted = world.suite(run.concept, run.split), fit(run, world)
    dials = {"strength": read_off(by_strength(fitted, suite, world))}
    if isinstance(fitted.model, SparseAdapter):
        dials["importance"] = read_off(by_importance(fitted.model, suite, world))
        dials["greedy"] = read_off(by_greedy_order(fitted.model, suite, world))
    return {"dials": dials}


def by_strength(fitted: Fitted, suite: Suite, world: World) -> Iterator[dict[str, float]]:
    """The dial is the strength; all atoms, or the whole peer."""
    for dial in world.some(DIAL):
        with fitted.applied(world, dial):
            yield {"dial": dial, "concept_fidelity": round(suite.concept()[0], 4)}


def by_importance(adapter: SparseAdapter, suite: Suite, world: World) -> Iterator[dict[str, float]]:
    """The dial is the share of the importance; nothing but the gains changes."""
    with adapter.attach(world.backend.denoiser, component="transformer") as attachment:
        for dial in world.some(DIAL):
            kept = select(adapter, Selection(importance_share=dial))
            attachment.set_gains(kept.gains())
            yield {"dial": dial, "share": kept.kept / kept.total, "concept_fidelity": round(suite.concept()[0], 4)}


def by_greedy_order(adapter: SparseAdapter, suite: Suite, world: World) -> Iterator[dict[str, float]]:
    """The dial is the share of the atoms on a log scale, refitted at each stop."""
    for dial in world.some(DIAL):
        selection = Selection(top=0, order="greedy") if dial == 0 else Selection(keep=LEAST ** (1 - dial), order="greedy")
        kept = select(adapter, selection, refit=True)
        with prune(adapter, kept, refit=True).attach(world.backend.denoiser, component="transformer"):
            yield {"dial": dial, "share": kept.kept / kept.total, "concept_fidelity": round(suite.concept()[0], 4)}


def read_off(stops: Iterator[dict[str, float]]) -> dict[str, Any]:
    """Spearman's rank correlation, and the largest step as a share of the whole way."""
    rows = list(stops)
    values = [row["concept_fidelity"] for row in rows]
    whole = max(values) - min(values)
    return {
        "spearman": round(spearman([row["dial"] for row in rows], values), 4),
        "largest_jump": round(max(abs(b - a) for a, b in pairwise(values)) / max(whole, 1e-9), 4),
        "rows": rows,
    }
