"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from .errors import FileFormatError

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be deleted: that is the lock
    fcntl = None  # type: ignore[assignment]

UNFINISHED = ".sparsedict-part"  # no other program's ending, as such files are deleted


def write_atomically(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write to a temporary file in the same folder, sync it, move it into place; on failure nothing is left behind.

    What a killed write has left in the folder goes with the next one. Raises FileFormatError with the system's reason
    (disk full, not writable, …).
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        stream, temporary = _begin(path)
        with stream:
            stream.writelines((data,) if isinstance(data, bytes) else data)
            stream.flush()
            os.fsync(stream.fileno())
            if fcntl is not None:  # while it is locked, or another's sweep might come between
                os.replace(temporary, path)
        if fcntl is None:
            os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise FileFormatError(_reason(path, error)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Delete the temporary files of writes that were killed; those of living writers are locked and stay."""
    for left in folder.glob(f".*{UNFINISHED}"):
        with contextlib.suppress(OSError):
            if fcntl is None:
                left.unlink()
                continue
            with left.open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()


def _begin(path: Path) -> tuple[BinaryIO, Path]:
    """A new temporary file beside `path`, locked for as long as it is open."""
    # Not by tempfile, which makes files for the owner only: a saved adapter gets what any new file gets.
    while True:
        temporary = path.with_name(f".{secrets.token_hex(8)}{UNFINISHED}")
        stream = temporary.open("xb")
        if fcntl is None:
            return stream, temporary
        with contextlib.suppress(OSError):  # a file system without locks: left files then stay
            fcntl.flock(stream, fcntl.LOCK_EX)
        if os.fstat(stream.fileno()).st_nlink:
            return stream, temporary
        stream.close()  # swept away before it was locked


def _reason(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{path} was not saved, the disk is full; free some space there, or choose another place."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{path} was not saved, the folder {path.parent} is not writable; choose another folder."
    return f"{path} was not saved: {error.strerror or error}; choose another place."
