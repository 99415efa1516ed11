"""Works through runs that have no result yet, written one by one: what is killed goes on where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from ...evaluation.machine import machine, peak_memory_bytes
from ..result_table import RESULTS, ResultTable
from ..runs import Run
from .training import World

Measure = Callable[[Run, World], dict[str, Any]]


def work_through(
    table: str, runs: Iterable[Run], world: World, measure: Measure, results: Path = RESULTS, say: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """Do the runs that have no result for this base; returns all of their results."""
    done, runs, fingerprint, kept = [], list(runs), world.backend.fingerprint(), ResultTable(table, results)
    for number, run in enumerate(runs, 1):
        found = kept.get(run.key)
        if found is None or found["base_fingerprint"] != fingerprint:
            began = time.time()
            found = {
                "run": asdict(run), **measure(run, world), "base_fingerprint": fingerprint, "wall_seconds": round(time.time() - began, 1),
                "peak_memory_bytes": peak_memory_bytes(), "machine": machine(),
            }  # fmt: skip
            kept.put(run.key, found)
        say(f"{table} {number}/{len(runs)} {run.key}: {brief(found)}")
        done.append(found)
    return done


def brief(found: dict[str, Any]) -> str:
    """A result's first numbers, for the console."""
    return ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in islice(_numbers(found), 3))


def _numbers(found: dict[str, Any], front: str = "") -> Iterator[tuple[str, float]]:
    for key, value in found.items():
        if isinstance(value, dict) and key not in ("run", "machine"):
            yield from _numbers(value, f"{key} ")
        elif isinstance(value, float) and not key.endswith("seconds"):
            yield front + key, value
