"""The runs of E6: each method at the best of four rates, searched on another seed; runs that are there are read."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...evaluation.machine import machine, peak_memory_bytes
from ..result_table import ResultTable
from .figure import draw
from .measures import STEPS, Digits, DigitsRun, adapter_path, measure

TABLE = "E6"
METHODS = ("ours", "lora", "lora_quiet")
RATES = (3e-3, 1e-2, 2e-2, 3e-2)
SEEDS = 3
SEARCH_SEED = 100
TIE = 0.02  # of P(3), below which the one that leaves the other digits alone is better


def work_through(runs: Sequence[DigitsRun], digits: Digits, cache: Path, results: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """The results of all runs; those that are there for this base are read."""
    done, fingerprint, kept = [], digits.backend.fingerprint(), ResultTable(TABLE, results)
    for run in runs:
        found = kept.get(run.key)
        if found is None or found["base_fingerprint"] != fingerprint:
            began = time.time()
            found = {"run": vars(run), **measure(run, digits, cache), "base_fingerprint": fingerprint, "wall_seconds": round(time.time() - began, 1),
                     "peak_memory_bytes": peak_memory_bytes(), "machine": machine()}  # fmt: skip
            kept.put(run.key, found)
        say(f"{run.key}: P(3) {found['changed']:.3f}, P(own class) {found['own']:.3f}" + (f", fewest atoms {found['fewest_atoms']}" if "fewest_atoms" in found else ""))
        done.append(found)
    return done


def best_rates(searched: Sequence[dict[str, Any]]) -> dict[str, float]:
    """By method: of the rates within TIE of the highest P(3), the one that leaves the other digits most as they are."""
    best = {}
    for method in dict.fromkeys(result["run"]["method"] for result in searched):
        mine = [result for result in searched if result["run"]["method"] == method]
        top = max(result["changed"] for result in mine)
        best[method] = max((r for r in mine if r["changed"] >= top - TIE), key=lambda r: r["own"])["run"]["rate"]
    return best


def evidence(cache: Path, results: Path, say: Callable[[str], None], seeds: int = SEEDS, rates: Sequence[float] = RATES, steps: int = STEPS,
             base_steps: int | None = None, figure: Path | None = None) -> None:  # fmt: skip
    """Search the rates, run the seeds, draw the figure of the first one."""
    digits = Digits(cache, say, base_steps)
    say(f"classifier: {digits.accuracy:.3f} right on digits it never saw")
    searched = work_through([DigitsRun(m, SEARCH_SEED, rate, "search", steps) for m in METHODS for rate in rates], digits, cache, results, say)
    rate_of = best_rates(searched)
    runs = [DigitsRun(method, seed, rate_of[method], "report", steps) for seed in range(seeds) for method in METHODS]
    found = work_through(runs, digits, cache, results, say)
    if figure is not None:
        first = replace(runs[0], method="ours", rate=rate_of["ours"])
        if not adapter_path(cache, first).exists():
            measure(first, digits, cache)
        draw(digits, adapter_path(cache, first), [result for result in found if result["run"]["method"] == "ours"], figure)
        say(f"figure: {figure}")
