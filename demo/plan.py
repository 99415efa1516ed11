"""How much the demo does. A test runs it small."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from ..demo_model.precision import bf16_pays
from ..evaluation.suite import STEPS


@dataclass(frozen=True)
class Plan:
    """Shares, strengths and rates of the demo's stages."""

    steps: int = 200
    precision: str = field(default_factory=lambda: "bf16" if bf16_pays(torch.device("cpu")) else "fp32")  # of trainings and pictures
    shares: tuple[float, ...] = (0.25, 0.10)  # of the atoms kept, beside all of them
    edit_shares: tuple[float, ...] = (1.0, 0.25)
    edit_strengths: tuple[float, ...] = (1.0, 0.5)
    slider_parts: int = 4  # more would not fit into six minutes on two older cores
    # The best of 5e-3, 1e-2 and 2e-2 for this concept; with the quiet term of 1e-2, 2e-2 and 3e-2; for the edit of 3e-3, 5e-3, 1e-2 and 2e-2.
    # A merge's strengths are those of nine pairs at which both are seen most. All of one seed on this base; benchmarks/world searches on more
    # (bench --full --only E1,E3,E4).
    lora_rate: float = 1e-2
    lora_quiet_rate: float = 1e-2
    lora_quiet_weight: float = 0.03
    edit_lora_rate: float = 5e-3
    merge_strengths: tuple[float, float] = (1.0, 2.0)  # of the concept, and of the style
    sampling_steps: int = STEPS
    drift_prompts: int = 16
    grounds: tuple[str, ...] = ("night", "sky", "clay", "mint")  # that the concept is asked for on
    training: dict[str, Any] = field(default_factory=lambda: {"batch_size": 8})  # more of TrainConfig, for all trainings; six minutes are the promise
