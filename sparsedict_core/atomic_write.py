"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from .errors import FileFormatError


def write_atomically(path: Path, data: bytes) -> None:
    """Write to a temporary file in the same folder, sync it, move it into place; on failure nothing is left behind.

    Raises FileFormatError with the system's reason (disk full, not writable, …).
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if os.name == "posix":
            # mkstemp makes files for the owner only; a saved adapter gets what any new file gets.
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise FileFormatError(_reason(path, error)) from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def _reason(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"{path} was not saved, the disk is full; free some space and save again."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{path} was not saved, the folder {path.parent} is not writable; choose another folder."
    return f"{path} was not saved: {error.strerror or error}; choose another place."
