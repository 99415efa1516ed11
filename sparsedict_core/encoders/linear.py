"""No threshold: C = u. Every atom fires everywhere, as in a LoRA."""

from __future__ import annotations

from torch import Tensor

from .base import Encoder


class LinearEncoder(Encoder):
    name = "linear"

    def coefficients(self, u: Tensor, threshold: Tensor) -> Tensor:
        return u
