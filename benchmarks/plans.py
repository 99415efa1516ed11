"""Which runs a table needs: every method gets as many trials in the search, and the same concepts and seeds in the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .runs import Run

PARAMETERS = 51_840  # of the default adapter on the embedded base; a peer's rank is the nearest to it
CONCEPTS = ("zorp", "quax")
TIE = 0.01  # fidelities nearer than this are no reason to prefer a setting
# Trials a method: four settings each. Ours: the method's default, and what it may be too careful in.
OURS = (
    {"quiet_weight": 0.1, "settings": {}},
    {"quiet_weight": 0.03, "settings": {}},
    {"quiet_weight": 0.01, "settings": {}},
    {"quiet_weight": 0.03, "settings": {"nested": 0.1}},
)
LORA = tuple({"learning_rate": rate, "quiet_weight": 0.0} for rate in (3e-3, 1e-2, 2e-2, 3e-2))
LORA_QUIET = (
    {"learning_rate": 1e-2, "quiet_weight": 0.1},
    {"learning_rate": 1e-2, "quiet_weight": 0.03},
    {"learning_rate": 1e-2, "quiet_weight": 0.01},
    {"learning_rate": 3e-2, "quiet_weight": 0.03},
)
TRIALS: dict[str, tuple[str, tuple[dict[str, Any], ...]]] = {
    "sparse dictionary": ("ours", OURS),
    "LoRA": ("lora", LORA),
    "LoRA + quiet term": ("lora", LORA_QUIET),
}


def search_runs() -> list[Run]:
    return [
        Run(method, concept, 0, split="search", **trial)
        for concept in CONCEPTS
        for method, trials in TRIALS.values()
        for trial in trials
    ]


def setting(run: Mapping[str, Any]) -> tuple:
    """What a trial varies, of a run's fields."""
    return run["method"], run["learning_rate"], run["quiet_weight"], tuple(sorted(run["settings"].items()))


def label(run: Mapping[str, Any]) -> str:
    """The method's name in the tables."""
    if run["method"] == "ours":
        return "sparse dictionary"
    return "LoRA" if run["quiet_weight"] == 0 else "LoRA + quiet term"


def preferred(run: Mapping[str, Any]) -> bool:
    """Nested training in a quarter of the steps, of ours: with less of it a tenth of the atoms kept 85 % of the fidelity, at no gain in full."""
    return run["method"] == "ours" and not run["settings"]


def winners(results: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The best setting of each method by mean fidelity over the search's concepts; of those within TIE of it, the preferred one, else the one that drifts least."""
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
    return best


def report_runs(chosen: Mapping[str, Mapping[str, Any]], concepts: Iterable[str], seeds: int) -> list[Run]:
    return [
        Run(**{**result["run"], "concept": concept, "seed": seed, "split": "report"})
        for concept in concepts
        for seed in range(seeds)
        for result in chosen.values()
    ]
