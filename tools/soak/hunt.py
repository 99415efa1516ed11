"""Hypothesis for the soak: inputs until a number or a time is reached, the least of each kind of violation kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from .mutations import NUMBERS, TEXTS
from .row import Row

_BATCH = 250
#: Anything that JSON can hold, and what it cannot: NaN and infinities.
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(NUMBERS) | st.sampled_from(TEXTS) | st.integers(-2, 20) | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


class DoesNotHold(Exception):
    """Its text says what."""


def hunt(row: Row, inputs: st.SearchStrategy[Any], wrong: Callable[[Any], str], count: int, minutes: float | None, first_seed: int) -> None:
    """Give `wrong` inputs; it says what did not hold, or nothing. `row` counts all that were tried."""
    ends, batch = None if minutes is None else time.monotonic() + 60 * minutes, 0
    while row.tried < count if ends is None else time.monotonic() < ends:
        _look(row, inputs, wrong, min(_BATCH, count - row.tried) if ends is None else _BATCH, 10_000 * first_seed + batch)
        batch += 1


def _look(row: Row, inputs: st.SearchStrategy[Any], wrong: Callable[[Any], str], count: int, number: int) -> None:
    @seed(number)
    @settings(
        max_examples=count, database=None, deadline=None, report_multiple_bugs=False, suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )  # fmt: skip
    @given(inputs)
    def look(value: Any) -> None:
        row.tried += 1
        if said := wrong(value):
            raise DoesNotHold(f"seed {number}, {value!r:.2000}: {said}")

    try:
        look()
    except DoesNotHold as error:
        row.violations.append(str(error))
