"""The paper's plain reading: a two-sided soft threshold that is fixed, C = sign(u)·ReLU(|u| − τ). Give it a dense dictionary (rank none)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bounds import Bounds
from .base import Encoder


class SoftEncoder(Encoder):
    """An atom may be added or subtracted. Setting `threshold`: τ; of standardised inputs a fresh site's u has a spread of 1."""

    name = "soft"
    defaults: ClassVar[dict[str, Any]] = {"threshold": 1.0}
    bounds: ClassVar[dict[str, Bounds]] = {"threshold": Bounds(0, 1000)}

    def initial_threshold(self) -> Tensor:
        return torch.tensor(float(self.settings["threshold"]))

    def coefficients(self, u: Tensor, threshold: Tensor) -> Tensor:
        return F.relu(u - threshold) - F.relu(-u - threshold)

    def preactivations_for(self, c: Tensor, threshold: Tensor) -> Tensor:
        return c + torch.sign(c) * threshold
