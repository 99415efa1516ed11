"""Speed in the host, side by side with what it has itself: training steps, sampling, and changes of strength; its start and a stop.

The host runs in this process, on one thread. All figures are CPU seconds, as wall clock says nothing on a machine that others use; what
is compared takes turns, and medians are kept. (Start and stop are of a server, by the clock.) The host's folder is the one that
`dev.py comfy` makes, or COMFYUI_ROOT.
"""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ..result_table import ResultTable
from .cases import Case, find_host, start_host
from .learning import learning_rows
from .sampling import change_rows, sampling_rows
from .server import server_rows
from .training import training_rows

TABLE = "E7-host"
MODELS = ("demo", "wan", "sd15")
ROWS: dict[str, Callable[[Case, Path, int], Iterator[dict[str, Any]]]] = {
    "training": training_rows,
    "sampling": sampling_rows,
    "change": change_rows,
    "learning": learning_rows,
}
SERVER = "server"  # has no model of its own
PARTS = (*ROWS, SERVER)


def measure(parts: Sequence[str], models: Sequence[str], results: Path, repeats: int, say: Callable[[str], None]) -> None:
    """Measure `parts` (of PARTS) on `models` (of MODELS); one result for each pair, written anew after each row."""
    root, kept = find_host(), ResultTable(TABLE, results)
    about = {"torch": torch.__version__, "machine": platform.machine(), "threads": 1}

    def write(name: str, found: Iterator[dict[str, Any]], about: dict[str, Any]) -> None:
        rows: list[dict[str, Any]] = []
        for row in found:
            say(json.dumps({key: value for key, value in row.items() if key != "all"}))
            rows.append(row)
            kept.put(name, {**about, "rows": rows})

    if SERVER in parts:
        write(SERVER, server_rows(root, repeats), about)
    in_process = [part for part in parts if part != SERVER]
    with tempfile.TemporaryDirectory() as name:
        if in_process:
            about["host"] = start_host(root, Path(name))
        for model in models if in_process else ():
            case = Case(model)
            for part in in_process:
                write(f"{part}-{model}", ROWS[part](case, Path(name), repeats), about)
