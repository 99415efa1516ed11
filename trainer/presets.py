"""Sets of settings by what a user wants; what a preset doesn't name is TrainConfig's default."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # 4 to 20 images of one thing.
    "concept": {},
    # A look on everything: quiet rows would hush what should be everywhere.
    "style": {"quiet_weight": 0.0, "density": 0.2},
    # One picture and its caption, to be edited by prompt. Statistics come from the base's own samples all the same.
    # The quiet term would keep the rest stiller, but with one image it costs much of the subject (docs/method.md).
    # The rate is what the search chose (benchmarks/RESULTS.md, E3).
    "edit": {"quiet_weight": 0.0, "nested": 0.5, "learning_rate": 1e-2},
}
