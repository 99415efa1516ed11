"""Sparse coding proper: a few unrolled ISTA steps towards min ½‖x̂ − Σ_j C_j e_j‖² + τ‖C‖₁, e_j the encoder's rows.

After Gregor & LeCun, "Learning Fast Approximations of Sparse Coding" (2010). Slow: every step costs m² a token.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..bounds import Bounds
from .base import MOMENTUM, Encoder
from .soft_quantile import soft_threshold


class IstaEncoder(Encoder):
    """Atoms that explain the same part of the input inhibit each other, so removing one changes the others."""

    name = "ista"
    defaults: ClassVar[dict[str, Any]] = {"momentum": 0.9, "steps": 5}
    # Every token waits for all steps.
    bounds: ClassVar[dict[str, Bounds]] = {"momentum": MOMENTUM, "steps": Bounds(1, 100, whole=True)}
    atomwise = False
    needs_gram = True
    running = True

    def coefficients(self, u: Tensor, threshold: Tensor, density: float | None = None, gram: Tensor | None = None) -> Tensor:
        if gram is None:
            raise ValueError("ista needs the inner products of the encoder's rows")
        if u.shape[-1] == 0:
            return u
        # The largest absolute row sum bounds the largest eigenvalue, so the iteration never diverges.
        step = 1.0 / gram.detach().abs().sum(-1).max().clamp(min=1e-6)
        c = soft_threshold(u * step, threshold * step)
        for _ in range(self.settings["steps"] - 1):
            c = soft_threshold(c + (u - torch.matmul(c, gram)) * step, threshold * step)
        return c
