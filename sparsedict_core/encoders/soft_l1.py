"""Soft threshold that is learned, with an L1 penalty. In our toy it collapsed: τ hardly moves under Adam."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..bounds import Bounds
from .base import Encoder, l1_penalty
from .soft_quantile import soft_threshold


class SoftL1Encoder(Encoder):
    """One learned τ a site. Give the trainer a controller for the penalty's weight."""

    name = "soft_l1"
    defaults: ClassVar[dict[str, Any]] = {"initial_threshold": 0.1}
    bounds: ClassVar[dict[str, Bounds]] = {"initial_threshold": Bounds(0, 1000)}
    learned = ("threshold",)

    def initial_threshold(self, atoms: int) -> Tensor:
        return torch.tensor(float(self.settings["initial_threshold"]))

    def coefficients(self, u: Tensor, threshold: Tensor, density: float | None = None, gram: Tensor | None = None) -> Tensor:
        return soft_threshold(u, threshold.clamp(min=0))

    def penalty(self, c: Tensor, u: Tensor | None = None, threshold: Tensor | None = None) -> Tensor | None:
        return l1_penalty(c)

    def preactivations_for(self, c: Tensor, threshold: Tensor) -> Tensor:
        return c + torch.sign(c) * threshold.clamp(min=0)
