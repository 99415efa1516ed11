"""Coefficients as attention over the atoms: C_j = exp(u_j/T) / (1 + Σ_k exp(u_k/T)), the encoder's rows being the keys.

How it differs from keys for the *frozen query*: there the attention's own q, which the base computes, would be
matched against the learned keys. Here the query is a learned projection of the site's input, that is of the attention's
*result*; nothing inside the attention is touched, so it works at any Linear. The 1 in the denominator is a null key:
without it a site could not stay silent, and the last atom left would always have coefficient 1.
No coefficient is exactly zero, so the activation density is 1; atoms compete, so removing one strengthens the others.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..bounds import Bounds
from .base import Encoder


class AttentionEncoder(Encoder):
    name = "attention"
    defaults: ClassVar[dict[str, Any]] = {"temperature": 1.0}
    # Far below, u/T is no number in half precision.
    bounds: ClassVar[dict[str, Bounds]] = {"temperature": Bounds(0.001, 1000)}
    atomwise = False

    def coefficients(self, u: Tensor, threshold: Tensor, density: float | None = None, gram: Tensor | None = None) -> Tensor:
        logits = u / self.settings["temperature"]
        null = logits.new_zeros((*logits.shape[:-1], 1))
        return torch.softmax(torch.cat([logits, null], dim=-1), dim=-1)[..., :-1]
