"""What ordinary use of a file costs: loading one of about a megabyte, and attaching it; beside an older core, as a ratio of the same rounds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...sparsedict_core.site import SiteName
from ..timing import in_turns, paired_ratio, seconds_of
from .variants import BEFORE, core_at, trained_adapter

#: Files by name: sites, width, atoms, rank.
SHAPES = {"60 wide sites": (60, 320, 128, 8), "1,000 narrow sites": (1000, 24, 16, 4)}


def measure(before: Path | None, repeats: int, say: Callable[[str], None]) -> None:
    """Says CPU milliseconds, and where another `sparsedict_core` is given, this one's over the other's."""
    for name, (count, width, atoms, rank) in SHAPES.items():
        model = nn.ModuleDict({f"b{number}": nn.Linear(width, width) for number in range(count)}).requires_grad_(False)
        sites = [SiteName(f"b{number}", number) for number in range(count)]
        runs: dict[str, Callable[[], float]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for core, suffix in ((core_at(None), ""), *(((core_at(before), f" {BEFORE}"),) if before else ())):
                path = Path(folder) / f"a{len(runs)}.safetensors"
                core.save(trained_adapter(core, model, "", sites, atoms, rank), path)
                runs |= _runs(core, path, model, suffix)
            size = path.stat().st_size
            with torch.inference_mode():
                times = in_turns(runs, repeats)
        for work in ("load", "attach", "both"):
            ratio = f", {paired_ratio(times['all'], work, f'{work} {BEFORE}'):.2f} × as long as {BEFORE}" if before else ""
            say(f"{name}, {size / 1e6:.2f} MB: {work} {1000 * times['seconds'][work]:.1f} ms{ratio}")


def _runs(core: Any, path: Path, model: nn.Module, suffix: str) -> dict[str, Callable[[], float]]:
    loaded = core.load(path)
    return {
        f"load{suffix}": lambda: seconds_of(lambda: core.load(path)),
        f"attach{suffix}": lambda: seconds_of(lambda: loaded.attach(model).detach()),
        f"both{suffix}": lambda: seconds_of(lambda: core.load(path).attach(model).detach()),
    }
