"""What the demo's stages share, and what they find: figures for report.json, pictures for the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..demo_model.concepts import STYLE_WORD
from ..demo_model.pipeline import DemoPipeline
from ..evaluation.suite import Suite
from ..trainer import PRESETS, ConceptData, TrainConfig, TrainResult, train
from ..trainer.backends.demo import DemoBackend
from ..trainer.callbacks import Callbacks
from .plan import Plan
from .stages import Clock

CONCEPTS = Path(__file__).parent / "concepts"
Concept = tuple[float, float, Tensor]  # as Suite.concept() gives it
CONCEPT, SECOND, EDITED, STYLE = "zorp", "quax", "blick", STYLE_WORD


@dataclass
class Study:
    """One run of the demo."""

    out: Path
    plan: Plan
    backend: DemoBackend
    suite: Suite
    clock: Clock
    base_concept: Concept = field(init=False)  # the base's own attempt
    report: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, Any] = field(default_factory=dict)  # what the page shows

    @property
    def pipeline(self) -> DemoPipeline:
        return self.backend.pipeline


def settings(study: Study, name: str, preset: str, seed: int, **more: Any) -> TrainConfig:
    return TrainConfig(
        **{**PRESETS[preset], "steps": study.plan.steps, "out": study.out / f"{name}.safetensors", "overwrite": True, "seed": seed,
           "checkpoint_every": 10_000, "keep_checkpoints": 0, "precision": study.plan.precision, "cache": study.out,
           "placeholder": name.split("-")[0], **study.plan.training, **more}
    )  # fmt: skip


def trained(config: TrainConfig, study: Study, folder: Path) -> TrainResult:
    return train(config, study.backend, ConceptData.from_folder(folder), Callbacks())
