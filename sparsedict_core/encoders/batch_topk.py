"""Only the largest |u| of the whole batch stay; at inference the running threshold of training takes their place.

After Bussmann et al., "BatchTopK Sparse Autoencoders" (2024).
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from ..bounds import Bounds
from .base import MOMENTUM, Encoder


class BatchTopKEncoder(Encoder):
    """In training the batch's own quantile is the threshold, so the density is exact (up to the subsample's error)."""

    name = "batch_topk"
    defaults: ClassVar[dict[str, Any]] = {"momentum": 0.9}
    bounds: ClassVar[dict[str, Bounds]] = {"momentum": MOMENTUM}
    running = True

    def coefficients(self, u: Tensor, threshold: Tensor, density: float | None = None, gram: Tensor | None = None) -> Tensor:
        if density is not None:
            observed = self.observed_threshold(u, density)
            threshold = threshold if observed is None else observed.to(u.dtype)
        return u * (u.abs() > threshold)
