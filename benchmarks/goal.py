"""One line of the goals: what was asked, what was found by unit (a concept, a pair, a round), and why it was missed."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .formatting import half_interval, interval

Results = Sequence[Mapping[str, Any]]
ROUNDS = "rounds"  # of what took turns in one run


@dataclass(frozen=True)
class Goal:
    """Reached or missed by the mean over the units; the interval is over them too."""

    text: str
    bound: float
    values: Sequence[float]  # one a unit
    unit: str  # what one value is of, in the plural
    at_least: bool = True  # else at most
    estimate: float | None = None  # where it isn't the values' mean
    cause: str = ""  # why it was missed, as far as that was found

    @property
    def found(self) -> float:
        return sum(self.values) / len(self.values) if self.estimate is None else self.estimate

    def reaches(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound

    @property
    def reached(self) -> bool:
        return self.reaches(self.found)

    @property
    def state(self) -> str:
        state, half = "reached" if self.reached else "missed", half_interval(self.values)
        if half is not None and self.reaches(self.found - half) != self.reaches(self.found + half):
            state += ", within the interval"
        return state

    @property
    def asked(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"

    @property
    def found_in_words(self) -> str:
        return interval(self.values, self.found)


def unit_means(found: Iterable[tuple[Hashable, float]]) -> list[float]:
    """One mean a unit, from (unit, value): runs of one concept that differ in their seed are no independent worlds."""
    groups: dict[Hashable, list[float]] = {}
    for unit, value in found:
        groups.setdefault(unit, []).append(value)
    return [sum(values) / len(values) for values in groups.values()]


def ratio_of_means(over: Sequence[float], under: Sequence[float]) -> tuple[float, list[float]]:
    """mean(over) / mean(under) of paired values, and its jackknife pseudo-values, whose standard error is its own.

    A mean of ratios is ruined by one small denominator: what an adapter adds is a difference of two noisy times.
    """
    n, top, bottom = len(over), sum(over), sum(under)
    whole = top / bottom
    if n == 1:
        return whole, [whole]
    return whole, [n * whole - (n - 1) * (top - a) / (bottom - b) for a, b in zip(over, under, strict=True)]


def at_most(text: str, bound: float, values: Sequence[float], unit: str = ROUNDS, cause: str = "") -> Goal:
    return Goal(text, bound, values, unit, at_least=False, cause=cause)


def ratio_at_most(text: str, bound: float, over: Sequence[float], under: Sequence[float], cause: str = "") -> Goal:
    """Of what took turns, paired round by round."""
    estimate, values = ratio_of_means(over, under)
    return Goal(text, bound, values, ROUNDS, at_least=False, estimate=estimate, cause=cause)
