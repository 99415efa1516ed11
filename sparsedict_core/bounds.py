"""What a number from a file or a user may be."""

from __future__ import annotations

from typing import Any, NamedTuple


class Bounds(NamedTuple):
    """A number from `low` to `high`, both included."""

    low: float
    high: float
    whole: bool = False

    def hold(self, value: Any) -> bool:
        """Whether `value` is such a number; NaN, True and text are none."""
        kinds = int if self.whole else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"a {'whole ' if self.whole else ''}number from {self.low:g} to {self.high:g}"
