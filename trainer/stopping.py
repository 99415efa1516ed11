"""How a run is told to stop from outside: a host's exceptions, and Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from .backends.base import Backend
from .callbacks import Interrupted


def interruptions(backend: Backend) -> tuple[type[Exception], ...]:
    """What ends a step half-way without being an error."""
    return (Interrupted, *getattr(backend, "interruptions", ()))


@contextlib.contextmanager
def interrupt_flag() -> Iterator[threading.Event]:
    """Ctrl-C sets a flag that is read after the step; a second one interrupts at once."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: object) -> None:
        flag.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, before)
