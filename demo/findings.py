"""What the demo's stages share, and what they find: figures for report.json, pictures for the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..demo_model.pipeline import DemoPipeline
from ..evaluation.suite import Suite
from ..trainer.backends.demo import DemoBackend
from .plan import Plan
from .stages import Clock


@dataclass
class Study:
    """One run of the demo."""

    out: Path
    plan: Plan
    backend: DemoBackend
    suite: Suite
    clock: Clock
    report: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, Any] = field(default_factory=dict)  # what the page shows

    @property
    def pipeline(self) -> DemoPipeline:
        return self.backend.pipeline
