"""One run at a time has a folder of checkpoints: a second one with the same out is stopped at its start, not at its end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ..sparsedict_core.errors import TrainingError

NAME = "run.lock"


@contextlib.contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Hold `folder`, making it; a kill lets go of it too. Left behind is only what was put there.

    Raises TrainingError where another run holds it, and where nothing can be written there.
    """
    lock = FileLock(folder / NAME)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(NotImplementedError):  # a file system without locks
            lock.acquire(blocking=False)
    except Timeout:
        raise TrainingError(f"another run is writing its checkpoints to {folder}; wait for its end, or choose another out.") from None
    except OSError as error:
        raise TrainingError(f"no checkpoint can be written to {folder} ({error.strerror or error}); make room for it, or choose another out.") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / NAME).unlink()  # before it is let go, or it would be the next one's
        with contextlib.suppress(OSError):
            lock.release()
        with contextlib.suppress(OSError):
            folder.rmdir()
