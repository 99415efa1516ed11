"""The evidence part by part, each resumable and runnable alone: what `bench --quick` and `--full` go through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from .result_table import RESULTS, read_results
from .runs import Run
from .world import plans
from .world.queue import work_through
from .world.shrinking import SHARES as SHRINK_SHARES
from .world.training import World

FIGURE = RESULTS.parent.parent / "docs" / "images" / "digits.png"
QUICK_RATES, QUICK_DIGIT_STEPS = (1e-2,), 60
PEERS_AT_HAND = ("sparse dictionary", "LoRA", "LoRA + quiet term")


@dataclass(frozen=True)
class Scope:
    """How much of each part is run."""

    search: bool  # False: the settings are those that the project's own search found
    methods: tuple[str, ...] | None  # of E1; None: all
    concepts: tuple[str, ...]
    seeds: int
    shrink_shares: tuple[float, ...]
    steps: int = 300


QUICK = Scope(search=False, methods=PEERS_AT_HAND, concepts=("quax",), seeds=1, shrink_shares=(0.10,), steps=50)
FULL = Scope(search=True, methods=None, concepts=plans.CONCEPTS, seeds=plans.SEEDS, shrink_shares=SHRINK_SHARES)


@dataclass
class Job:
    """Where results go, and how much is to be done."""

    results: Path
    cache: Path
    scope: Scope
    say: Callable[[str], None] = print
    threads: int = 1
    found: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def world(self) -> World:
        return World(self.cache, few=not self.scope.search)

    def do(self, table: str, runs: list, measure: Callable[[Any, World], dict[str, Any]]) -> list[dict[str, Any]]:
        return work_through(table, runs, self.world, measure, self.results, self.say)

    def searched(self, table: str) -> list[dict[str, Any]]:
        """A search's results: this job's own, or the project's."""
        return read_results(table, self.results if self.scope.search else RESULTS)

    @property
    def fewer_steps(self) -> int | None:
        """Of each training, where that is not the trained one's own number."""
        return None if self.scope.search else self.scope.steps

    @property
    def winners(self) -> dict[str, Any]:
        return plans.winners(self.searched("E1-search"))

    def shortened(self, runs: list[Run]) -> list[Run]:
        """Each once: runs that differ in their steps alone may be the same now."""
        return list({run.key: run for run in (replace(run, steps=min(run.steps, self.scope.steps)) for run in runs)}.values())


def personalisation(job: Job) -> None:
    """E1 and E2: fidelity, drift, likeness, pruning."""
    from .world.personalisation import measure, measure_likeness

    if job.scope.search:
        job.do("E1-search", plans.search_runs(job.scope.methods), measure)
    chosen = {name: best for name, best in plans.with_many_atoms(job.winners).items() if job.scope.methods is None or name in job.scope.methods}
    runs = job.shortened(plans.report_runs(chosen, job.scope.concepts, job.scope.seeds))
    job.do("E1", runs, measure)
    job.do("E1-likeness", runs, measure_likeness)


def shrinking(job: Job) -> None:
    """E2: smaller files, beside LoRA cut by SVD and LoRA trained at that size."""
    from .world.shrinking import measure, shrink_runs

    scope = job.scope
    job.do("E2-shrink", shrink_runs(job.winners, scope.concepts, scope.seeds, scope.shrink_shares, job.fewer_steps), measure)


def editing(job: Job) -> None:
    """E3: one-picture edits."""
    from .world.editing import measure, report_runs, trial_runs

    if job.scope.search:
        job.do("E3-search", trial_runs(), measure)
    runs = report_runs(job.searched("E3-search"), job.scope.concepts, job.scope.seeds)
    job.do("E3", job.shortened(runs), measure)


def merging(job: Job) -> None:
    """E4: two at once."""
    from .world.merging import SEARCH_PAIRS, STRENGTHS, best_strengths, measure, merge_runs, pairs_of

    winners = job.winners
    if job.scope.search:
        job.do("E4-search", merge_runs(winners, SEARCH_PAIRS, 1, "search", lambda way, kind: STRENGTHS[kind]), measure)
    best = best_strengths(job.searched("E4-search"))
    pairs = pairs_of(job.scope.concepts)
    job.do("E4", merge_runs(winners, pairs, job.scope.seeds, "report", lambda way, kind: [best[way, kind]], job.fewer_steps), measure)


def dial(job: Job) -> None:
    """E5: the slider."""
    from .world.slider import measure

    chosen = {name: best for name, best in job.winners.items() if name in PEERS_AT_HAND}
    job.do("E5", job.shortened(plans.report_runs(chosen, job.scope.concepts, job.scope.seeds)), measure)


def digits(job: Job) -> None:
    """E6: an 8 becomes a 3."""
    from .digits.queue import SEEDS, evidence

    if job.scope.search:
        figure = FIGURE if job.results == RESULTS else None
        evidence(job.cache, job.results, job.say, SEEDS, figure=figure)
    else:
        evidence(job.cache, job.results, job.say, seeds=1, rates=QUICK_RATES, steps=QUICK_DIGIT_STEPS)


def speed(job: Job) -> None:
    """E7: real widths. (In ComfyUI and in the browser: the commands host-speed and front-end, which need both.)"""
    from .layer.models import NAMES
    from .layer.speed import PARTS as SPEED_PARTS
    from .layer.speed import measure

    quick = not job.scope.search
    measure(SPEED_PARTS, NAMES[:1] if quick else NAMES, job.results, quick, None, job.say)


PARTS: dict[str, Callable[[Job], None]] = {"E1": personalisation, "E2": shrinking, "E3": editing, "E4": merging, "E5": dial, "E6": digits, "E7": speed}
