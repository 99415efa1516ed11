"""How much the demo does. A test runs it small."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..evaluation.suite import STEPS


@dataclass(frozen=True)
class Plan:
    """Shares, strengths and rates of the demo's stages."""

    steps: int = 200
    shares: tuple[float, ...] = (1.0, 0.5, 0.25, 0.10, 0.05)
    edit_shares: tuple[float, ...] = (1.0, 0.25)
    edit_strengths: tuple[float, ...] = (1.0, 0.5)
    slider_parts: int = 7
    # What searches chose, or what is taken until there is one on this base: benchmarks/world (bench --full --only E1,E3,E4).
    lora_rate: float = 1e-2
    lora_quiet_rate: float = 3e-2
    lora_quiet_weight: float = 0.03
    edit_lora_rate: float = 2e-2
    merge_strengths: tuple[float, float] = (1.2, 1.0)  # of the concept, and of the style
    heal_steps: int = 40
    sampling_steps: int = STEPS
    drift_prompts: int = 24
    grounds: tuple[str, ...] = ("night", "sky", "clay", "mint")  # that the concept is asked for on
    training: dict[str, Any] = field(default_factory=lambda: {"batch_size": 8})  # more of TrainConfig, for all trainings; six minutes are the promise
