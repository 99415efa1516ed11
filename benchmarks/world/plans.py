"""Which runs a table needs: every peer gets at least as many trials in the search as ours, and the same concepts and seeds in the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...evaluation.peers import LABELS
from ..runs import Run

OURS_LABEL, QUIET_SUFFIX = "sparse dictionary", " + quiet term"
# Ours in another shape of as many numbers, to be pruned hard: half the rank, more atoms. Its other settings are the default shape's.
MANY_ATOMS_LABEL = "sparse dictionary (489 atoms a site)"
MANY_ATOMS = {"rank": 8, "atoms": 489}

PARAMETERS = 86_912  # of the default adapter on the embedded base; a peer's rank is the nearest to it
SEARCH_CONCEPTS = ("zorp", "quax")
CONCEPTS = ("zorp", "quax", "blick", "mib")
SEEDS = 5
TIE = 0.01  # fidelities nearer than this are no reason to prefer a setting
# Trials a method: five settings each. Ours: the method's default, and what it may be too careful in.
OURS = (
    {"quiet_weight": 0.1, "settings": {}},
    {"quiet_weight": 0.03, "settings": {}},
    {"quiet_weight": 0.01, "settings": {}},
    {"quiet_weight": 0.03, "settings": {"nested": 0.1}},
    {"quiet_weight": 0.03, "settings": {}, "learning_rate": 2e-2},
)
LORA_QUIET = (
    {"learning_rate": 1e-2, "quiet_weight": 0.1},
    {"learning_rate": 1e-2, "quiet_weight": 0.03},
    {"learning_rate": 1e-2, "quiet_weight": 0.01},
    {"learning_rate": 3e-2, "quiet_weight": 0.03},
    {"learning_rate": 5e-2, "quiet_weight": 0.03},
)
# Rates by what a peer's numbers are: OFT's turn the weight itself, VeRA's scale a random projection.
RATES: dict[str, tuple[float, ...]] = {
    "lora": (3e-3, 1e-2, 2e-2, 3e-2, 5e-2),
    "dora": (3e-3, 1e-2, 2e-2, 3e-2, 5e-2),
    "oft": (1e-3, 3e-3, 1e-2, 3e-2, 5e-2),
    "lokr": (3e-3, 1e-2, 2e-2, 3e-2, 5e-2),
    "loha": (3e-3, 1e-2, 2e-2, 3e-2, 1e-1),
    "shira": (3e-3, 1e-2, 2e-2, 3e-2, 5e-2),
    "vera": (3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
    "full": (3e-4, 1e-3, 3e-3, 1e-2, 2e-2),
}
# With the quiet term their best was at the end of what was tried: one rate more.
MORE_QUIET_RATES: dict[str, tuple[float, ...]] = {"dora": (1e-1,), "lokr": (1e-1,)}
PEER_QUIET_WEIGHT = 0.03  # what the search chose for ours and for LoRA
# Until a search is made on this base: the best of the few that were tried on the demo's concept (demo/plan.py).
ASSUMED: dict[str, dict[str, Any]] = {
    OURS_LABEL: {"method": "ours", **OURS[1]},
    "LoRA": {"method": "lora", "learning_rate": 1e-2, "quiet_weight": 0.0},
    "LoRA" + QUIET_SUFFIX: {"method": "lora", **LORA_QUIET[1]},
}


def trials() -> dict[str, tuple[str, tuple[dict[str, Any], ...]]]:
    """The settings that are searched, by the method's name in the tables: for each peer as many as for ours, or more."""
    found: dict[str, tuple[str, tuple[dict[str, Any], ...]]] = {OURS_LABEL: ("ours", OURS)}
    for method, rates in RATES.items():
        found[LABELS[method]] = (method, tuple({"learning_rate": rate, "quiet_weight": 0.0} for rate in rates))
        quiet = tuple({"learning_rate": rate, "quiet_weight": PEER_QUIET_WEIGHT} for rate in (*rates, *MORE_QUIET_RATES.get(method, ())))
        found[LABELS[method] + QUIET_SUFFIX] = (method, LORA_QUIET if method == "lora" else quiet)
    return found


def search_runs(names: Iterable[str] | None = None) -> list[Run]:
    """All trials of the methods named, or of all."""
    return [
        Run(method, concept, 0, split="search", **trial)
        for name, (method, settings) in trials().items()
        if names is None or name in names
        for concept in SEARCH_CONCEPTS
        for trial in settings
    ]


def setting(run: Mapping[str, Any]) -> tuple:
    """What a trial varies, of a run's fields."""
    return run["method"], run["learning_rate"], run["quiet_weight"], tuple(sorted(run["settings"].items()))


def label(run: Mapping[str, Any]) -> str:
    """The method's name in the tables."""
    if run["method"] == "ours":
        return MANY_ATOMS_LABEL if "rank" in run["settings"] else OURS_LABEL
    return LABELS[run["method"]] + (QUIET_SUFFIX if run["quiet_weight"] else "")


def preferred(run: Mapping[str, Any]) -> bool:
    """Nested training in a quarter of the steps, of ours: with less of it a tenth of the atoms kept 85 % of the fidelity, at no gain in full."""
    return run["method"] == "ours" and not run["settings"]


def winners(results: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The best setting of each method by mean fidelity over the search's concepts; of those within TIE of it, the preferred one, else the one that drifts least; ASSUMED of no results."""
    groups: dict[str, dict[tuple, list[Mapping[str, Any]]]] = {}
    for result in results:
        groups.setdefault(label(result["run"]), {}).setdefault(setting(result["run"]), []).append(result)

    def mean(group: list[Mapping[str, Any]], name: str) -> float:
        return sum(result[name] for result in group) / len(group)

    best = {}
    for name, trials in groups.items():
        top = max(mean(group, "concept_fidelity") for group in trials.values())
        close = [group for group in trials.values() if mean(group, "concept_fidelity") >= top - TIE]
        best[name] = min(close, key=lambda group: (not preferred(group[0]["run"]), mean(group, "drift")))[0]
    return best or {name: {"run": vars(Run(concept="", seed=0, split="search", **trial))} for name, trial in ASSUMED.items()}


def with_many_atoms(chosen: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The settings that were found, and of ours also those with many atoms."""
    run = chosen[OURS_LABEL]["run"]
    return {**chosen, MANY_ATOMS_LABEL: {"run": {**run, "settings": {**run["settings"], **MANY_ATOMS}}}}


def report_runs(chosen: Mapping[str, Mapping[str, Any]], concepts: Sequence[str], seeds: int) -> list[Run]:
    """Seed by seed, so that a queue that is stopped has as many runs of each concept."""
    return [
        Run(**{**result["run"], "concept": concept, "seed": seed, "split": "report"})
        for seed in range(seeds)
        for concept in concepts
        for result in chosen.values()
    ]
