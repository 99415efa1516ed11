"""Only regular files are opened: a pipe would keep us waiting for its writer, and a device may do anything when it is opened."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def open_regular(path: Path) -> int:
    """A descriptor for reading. Raises OSError for whatever cannot be read or is no regular file, whose `strerror` then says so."""
    _refuse(path, os.stat(path).st_mode)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(path, flags)
    try:
        _refuse(path, os.fstat(descriptor).st_mode)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def read_regular(path: Path) -> bytes:
    """All of it. Raises OSError as `open_regular`."""
    with open(open_regular(path), "rb") as stream:
        return stream.read()


def _refuse(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        what = "it is a folder" if stat.S_ISDIR(mode) else "it is a pipe, a socket or a device"
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, what, str(path))
