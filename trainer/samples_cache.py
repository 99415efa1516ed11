"""Where samples that a base has made once, and what it encoded, are kept for all runs: one folder with a limit, from which the longest unused goes first."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path

LIMIT = 4_000_000_000  # bytes
PATTERNS = ("quiet-*.safetensors", "encoded-*.safetensors")


def default_folder() -> Path:
    """`SPARSEDICT_CACHE`, else sparsedict/ in the place that the system has for caches."""
    chosen = os.environ.get("SPARSEDICT_CACHE")
    if chosen:
        return Path(chosen)
    try:
        home = Path.home()
    except RuntimeError:  # an account without one
        return Path(tempfile.gettempdir()) / "sparsedict"
    if sys.platform == "win32":
        place = os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"
    elif sys.platform == "darwin":
        place = home / "Library" / "Caches"
    else:
        place = os.environ.get("XDG_CACHE_HOME") or home / ".cache"
    return Path(place) / "sparsedict"


def kept_in(folder: Path) -> dict[Path, os.stat_result]:
    """The samples' files with what the system says of them, the longest unused first."""
    found = {}
    for path in (path for pattern in PATTERNS for path in folder.glob(pattern)):
        with contextlib.suppress(OSError):  # another run may be clearing up
            found[path] = path.stat()
    return dict(sorted(found.items(), key=lambda entry: entry[1].st_mtime_ns))


def used(path: Path) -> None:
    """Note that a file was of use just now."""
    with contextlib.suppress(OSError):
        os.utime(path)


def trim(folder: Path, limit: int | None = None) -> int:
    """Delete the longest unused until at most `limit` bytes are left (None: LIMIT); returns how many bytes went."""
    kept = kept_in(folder)
    size, gone = sum(status.st_size for status in kept.values()), 0
    for path, status in kept.items():
        if size - gone <= (LIMIT if limit is None else limit):
            break
        with contextlib.suppress(OSError):
            path.unlink()
            gone += status.st_size
    return gone
