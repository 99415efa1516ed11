"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from .errors import FileFormatError


def write_atomically(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write to a temporary file in the same folder, sync it, move it into place; on failure nothing is left behind.

    Raises FileFormatError with the system's reason (disk full, not writable, …).
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not by tempfile, which makes files for the owner only: a saved adapter gets what any new file gets.
        name = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        with name.open("xb") as stream:
            temporary = name
            stream.writelines((data,) if isinstance(data, bytes) else data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise FileFormatError(_reason(path, error)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _reason(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"{path} was not saved, the disk is full; free some space and save again."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{path} was not saved, the folder {path.parent} is not writable; choose another folder."
    return f"{path} was not saved: {error.strerror or error}; choose another place."
