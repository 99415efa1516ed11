"""The main job, end to end, on the embedded base model: train, look, prune, edit, merge, compare; and a page that shows it."""

from __future__ import annotations

from pathlib import Path


def run(out: Path = Path("out/demo"), seeds: int = 1) -> dict:
    """Write report.html, report.json and the adapters into `out`; returns the report."""
    from .study import run_study

    return run_study(Path(out), seeds)
