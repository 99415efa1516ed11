"""The default: one-sided, threshold from a running quantile. C = ReLU(u − τ). Our choice (docs/method.md)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from ..bounds import Bounds
from .base import Encoder


class QuantileEncoder(Encoder):
    """Reaches its density by construction: τ follows the (1 − ρ) quantile of |u|. Setting `momentum`: the share of the old τ in the new."""

    name = "quantile"
    one_sided = True
    rectifies = True
    running = True
    defaults: ClassVar[dict[str, Any]] = {"momentum": 0.9}
    bounds: ClassVar[dict[str, Bounds]] = {"momentum": Bounds(0, 1)}

    def coefficients(self, u: Tensor, threshold: Tensor) -> Tensor:
        return F.relu(u - threshold)

    def preactivations_for(self, c: Tensor, threshold: Tensor) -> Tensor:
        return c + threshold
