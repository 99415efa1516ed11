"""What the command line prints may get lost (a pipe's reader gone, a full disk, a closed terminal, a narrow encoding): the work goes on."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any


class Losable(io.BufferedIOBase):
    """A binary stream whose failed writes are noted, and nothing more is written."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self.inner.isatty()

    def fileno(self) -> int:
        return self.inner.fileno()

    def write(self, data: Any) -> int:
        self._tried(lambda: self.inner.write(data))
        return len(data)

    def flush(self) -> None:
        self._tried(self.inner.flush)

    def _tried(self, act: Any) -> None:
        if self.error is not None:
            return
        try:
            act()
        except OSError as error:
            self.error = error
            # The interpreter flushes at its end what is left, and would complain there.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.inner.fileno())
            os.close(nowhere)


def let_output_get_lost() -> None:
    """Wrap this process's stdout and stderr: writing never raises, characters that the encoding lacks become question marks."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # Closed: the next file that is opened would get this number, and what libraries print.
            os.open(os.devnull, os.O_RDWR)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            inner, encoding = open(descriptor, "wb", closefd=False), "utf-8"  # noqa: SIM115 - for as long as the process lives
        elif hasattr(stream, "buffer"):
            inner, encoding = stream.buffer, stream.encoding
        else:
            continue  # a notebook's, say
        setattr(sys, name, io.TextIOWrapper(Losable(inner), encoding=encoding, errors="replace", line_buffering=True, write_through=True))


def lost() -> str | None:
    """Why stdout could not be written to, where it was meant to be read: a reader that goes away, as `head` does, has enough."""
    error = getattr(getattr(sys.stdout, "buffer", None), "error", None)
    return None if error is None or error.errno == errno.EPIPE else error.strerror
