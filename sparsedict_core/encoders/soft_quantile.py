"""Two-sided soft threshold from a running quantile: C = sign(u)·ReLU(|u| − τ). Our choice."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bounds import Bounds
from .base import MOMENTUM, Encoder


def soft_threshold(u: Tensor, threshold: Tensor) -> Tensor:
    """sign(u)·ReLU(|u| − τ), written so that the gradient flows to τ as well."""
    return F.relu(u - threshold) - F.relu(-u - threshold)


class SoftQuantileEncoder(Encoder):
    """An atom may be added or subtracted; τ as in the quantile encoder."""

    name = "soft_quantile"
    defaults: ClassVar[dict[str, Any]] = {"momentum": 0.9}
    bounds: ClassVar[dict[str, Bounds]] = {"momentum": MOMENTUM}
    running = True

    def coefficients(self, u: Tensor, threshold: Tensor, density: float | None = None, gram: Tensor | None = None) -> Tensor:
        return soft_threshold(u, threshold)

    def preactivations_for(self, c: Tensor, threshold: Tensor) -> Tensor:
        return c + torch.sign(c) * threshold
