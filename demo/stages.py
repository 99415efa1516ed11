"""Says what the demo is doing, how long that should take, and how long it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Prints a line a stage to stderr and keeps the seconds by stage."""

    def __init__(self) -> None:
        self.began = time.time()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, expected: float) -> Iterator[None]:
        """`expected` is in seconds on two cores, for the reader alone."""
        print(f"[{time.time() - self.began:4.0f} s] {name} … about {expected:.0f} s", file=sys.stderr, flush=True)
        began = time.time()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.time() - began, 1)
