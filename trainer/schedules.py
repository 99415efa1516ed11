"""What changes over a run: learning rate, target density, weight of the quiet term. Pure functions of the step."""

from __future__ import annotations

import math

from .config import TrainConfig


def lr_factor(config: TrainConfig, step: int) -> float:
    """Multiplier of the learning rate at step 0, 1, …: warm-up, then by name."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    left = (config.steps - step) / config.steps
    if config.lr_schedule == "linear" and config.decay_share > 0:
        return warm * min(1.0, left / config.decay_share)
    if config.lr_schedule == "cosine":
        return warm * 0.5 * (1 + math.cos(math.pi * (1 - left)))
    return warm


def target_density(config: TrainConfig, step: int) -> float:
    """ρ at a step: from 1 to the config's density, linearly over the first `anneal_share` of the steps."""
    if config.anneal_share <= 0:
        return config.density
    progress = min(1.0, step / (config.anneal_share * config.steps))
    return 1.0 + (config.density - 1.0) * progress


def quiet_weight(config: TrainConfig, step: int) -> float:
    """Weight of the quiet term at a step, ramped in between the two shares of `quiet_ramp`."""
    start, end = config.quiet_ramp
    progress = (step / config.steps - start) / max(1e-9, end - start)
    return config.quiet_weight * min(1.0, max(0.0, progress))


def heal_factor(step: int, steps: int) -> float:
    """Of the healing rate at a step, of a shrunk or merged adapter: a short warm-up, and a decay in the second half."""
    return min(1.0, (step + 1) / 10, (steps - step) / (0.5 * steps))
