"""Means with their intervals, and tables in markdown."""

from __future__ import annotations

from collections.abc import Sequence

from scipy import stats


def half_interval(values: Sequence[float]) -> float | None:
    """Half of the 95 % interval of the mean (Student's t); None for one value."""
    return float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)) if len(values) > 1 else None


def interval(values: Sequence[float], mean: float | None = None) -> str:
    """`mean ± half of the 95 % interval`; the mean alone for one value. `mean`: where it is estimated otherwise."""
    mean, half = sum(values) / len(values) if mean is None else mean, half_interval(values)
    return f"{mean:.3f}" if half is None else f"{mean:.3f} ± {half:.3f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)])
