"""One run: a method, a concept, a seed, a rate. Its settings decide the key of its result, so a queue can be resumed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

# Fields that came later count only where they aren't their default, so that older results keep their keys.
LATER: dict[str, Any] = {"preset": "concept", "parameters": None}


def digest(values: dict[str, Any]) -> str:
    """Ten characters that stand for all of a run's settings."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]


def digest_of_set_fields(run: Any) -> str:
    """`digest` of a run whose unset fields don't count, so that a field that came later changes no older key."""
    return digest({name: value for name, value in asdict(run).items() if value is not None})


@dataclass(frozen=True)
class Run:
    """Everything that decides a result, but for the machine."""

    method: str  # "ours" or a peer's name
    concept: str
    seed: int
    learning_rate: float | None = None  # None: the preset's own (ours only)
    quiet_weight: float | None = None  # None: the preset's; 0: without the quiet term
    steps: int = 300
    # Rates and settings are chosen on "search", whose prompts and noise "report" never shows.
    split: str = "report"
    settings: dict[str, Any] = field(default_factory=dict)  # more of TrainConfig (ours, and the schedule of all)
    preset: str = "concept"
    parameters: int | None = None  # a peer's; None: as many as the default adapter's

    @property
    def key(self) -> str:
        """Readable front, exact back: the hash covers every field."""
        values = asdict(self)
        for name, default in LATER.items():
            if values[name] == default:
                del values[name]
        return f"{self.method}-{self.concept}-{self.split}-{self.seed}-{digest(values)}"
