"""A training on a disk that gets full at any of its writes, then has room again: nothing half-written is left, and it goes on."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .kills import Unbroken
from .row import Row
from .small_training import FINISHED, REFUSED, SmallTraining, damaged_files, left_over

SIZES = range(4, 260, 16)  # kB: from no room for anything to enough for all but the last files
ROOM = 20_000  # kB


def full_disks(sizes: range = SIZES, training: SmallTraining | None = None) -> Row:
    """One try a size. Nothing is tried where this account may mount no tmpfs; the row's name says so."""
    row = Row("trainings on a disk that is full (tmpfs of 4 to 260 kB) and then has room")
    training = training or SmallTraining()
    with tempfile.TemporaryDirectory() as place:
        unbroken = Unbroken(training, Path(place))
        for size in sizes:
            disk = Path(place) / f"disk-{size}"
            disk.mkdir()
            try:
                with mounted(disk, size):
                    row.tried += 1
                    row.violations += _tried(training, unbroken, disk / "run")
            except PermissionError:
                row.name += ": none, as no tmpfs may be mounted here"
                break
    return row


def _tried(training: SmallTraining, unbroken: Unbroken, folder: Path) -> list[str]:
    with contextlib.suppress(OSError):
        folder.mkdir()
    disk, log = folder.parent, folder.parent.parent / f"{folder.parent.name}.log"
    code = training.ended(training.start(folder, log))
    wrong = [] if code in (FINISHED, REFUSED) else [f"{disk.name}: {log.read_text()[-400:]}"]
    wrong += damaged_files(folder) + [f"{disk.name}: {text}" for text in left_over(folder)]
    if code == FINISHED:
        return wrong + unbroken.compared(folder)
    _mount(disk, ROOM, "remount,")
    folder.mkdir(exist_ok=True)
    return wrong + unbroken.gone_on(folder, log)


@contextlib.contextmanager
def mounted(disk: Path, size: int) -> Iterator[None]:
    """A tmpfs of `size` kB. Raises PermissionError where that is not allowed."""
    _mount(disk, size)
    try:
        yield
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _mount(disk: Path, size: int, options: str = "") -> None:
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"{options}size={size}k", "none", str(disk)], capture_output=True, text=True)
    if done.returncode:
        raise PermissionError(done.stderr.strip())
