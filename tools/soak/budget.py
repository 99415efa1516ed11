"""What a file may cost: looked into by every way that a user has, within so much time and memory."""

from __future__ import annotations

import contextlib
import io
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...cli.common import print_json, say
from ...cli.inspect import as_text, describe
from ...sparsedict_core.adapter import SparseAdapter
from ...sparsedict_core.atom_table import atom_table
from ...sparsedict_core.errors import SparseDictError
from ...sparsedict_core.file_format import load_with_metadata

SECONDS, BYTES_A_SECOND = 2.0, 10e6
MEMORY, BYTES_A_BYTE = 64e6, 20


@dataclass(frozen=True)
class Use:
    """CPU seconds, and bytes of memory at the peak beyond those at the start; None where the system doesn't tell."""

    seconds: float
    memory: float | None

    def over(self, size: int) -> str:
        """What is more than a file of `size` bytes may cost, in words; empty: nothing."""
        exceeded = []
        seconds = SECONDS + size / BYTES_A_SECOND
        if self.seconds > seconds and self.seconds > seconds * (slower := slowness()):
            exceeded.append(f"{self.seconds:.1f} s of {seconds * slower:.1f}")
        if self.memory is not None and self.memory > MEMORY + BYTES_A_BYTE * size:
            exceeded.append(f"{self.memory / 1e6:.0f} MB of {(MEMORY + BYTES_A_BYTE * size) / 1e6:.0f}")
        return " and ".join(exceeded)


def slowness() -> float:
    """How much slower than the machine that the budget was set on (2 cores of a 2020 server) this one is now, as others' work on the other
    half of a core shortens a CPU second; 1 for a faster one."""
    started = time.process_time()
    for _ in range(30):
        json.loads(json.dumps(list(range(10_000))))
    return max(1.0, (time.process_time() - started) / 0.045)


def measured(work: Callable[[], object]) -> Use:
    """Linux can forget a process's peak; elsewhere memory is not measured."""
    before = _memory("VmRSS") if _forget_peak() else None
    started = time.process_time()
    work()
    seconds = time.process_time() - started
    return Use(seconds, None if before is None else _memory("VmHWM") - before)


def look_into(path: Path, pictures: bool = True) -> SparseAdapter | None:
    """Load, inspect in words and as JSON, list for the front end, draw. None: refused, in one bounded sentence that fits on a line.

    Anything else than a SparseDictError that a file can cause is a fault, and is let through.
    """
    try:
        adapter, metadata = load_with_metadata(path)
    except SparseDictError as error:
        message = str(error)
        assert message.isprintable() and len(message) < 1200 and message.endswith("."), message[:300]
        return None
    report = describe(path, adapter, metadata, None)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        say(*as_text(report, adapter, 12))
    assert printed.getvalue().replace("\n", "").isprintable()
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        print_json(report)
    assert json.loads(printed.getvalue(), parse_constant=_refuse)["atoms"] == adapter.atom_count
    json.dumps(atom_table(adapter), ensure_ascii=False, allow_nan=False).encode()
    if pictures:
        from ...pictures import cumulative_curve, importance_map

        importance_map(adapter)
        cumulative_curve(adapter)
    return adapter


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def memory_now() -> float:
    """Bytes that the process holds; 0 where the system doesn't tell."""
    return _memory("VmRSS") if Path("/proc/self/status").exists() else 0.0


def _forget_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _memory(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return float(found[1]) * 1024
