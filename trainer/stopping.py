"""How a run is told to stop from outside: a host's exceptions, Ctrl-C, a system that shuts down, a terminal that goes away."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from .backends.base import Backend
from .callbacks import Interrupted

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]


def interruptions(backend: Backend) -> tuple[type[Exception], ...]:
    """What ends a step half-way without being an error."""
    return (Interrupted, *getattr(backend, "interruptions", ()))


class InterruptFlag(threading.Event):
    """Set by a signal; `number` is the first one's."""

    number: int | None = None


@contextlib.contextmanager
def interrupt_flag() -> Iterator[InterruptFlag]:
    """Ctrl-C, SIGTERM and SIGHUP set a flag that is read after the step; the same one once more acts at once.

    What the run was started to ignore (`nohup`) it goes on ignoring.
    """
    flag = InterruptFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    noted = [number for number in SIGNALS if number == signal.SIGINT or before[number] != signal.SIG_IGN]

    def note(number: int, frame: object) -> None:
        if flag.number is None:
            flag.number = number
        flag.set()
        signal.signal(number, before[number])

    for number in noted:
        signal.signal(number, note)
    try:
        yield flag
    finally:
        for number in noted:
            signal.signal(number, before[number])
