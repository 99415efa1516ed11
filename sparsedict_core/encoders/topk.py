"""Per token only the largest |u| stay: C = u at the top k, else 0.

Atoms compete: where one is removed, another may take its place.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..bounds import Bounds
from .base import Encoder


class TopKEncoder(Encoder):
    """Setting `share`: the share of a site's atoms that a token uses. In training the scheduled density goes before it."""

    name = "topk"
    defaults: ClassVar[dict[str, Any]] = {"share": 0.10}
    bounds: ClassVar[dict[str, Bounds]] = {"share": Bounds(0, 1)}
    atomwise = False

    def coefficients(self, u: Tensor, threshold: Tensor, density: float | None = None, gram: Tensor | None = None) -> Tensor:
        atoms = u.shape[-1]
        if atoms == 0:
            return u
        share = self.settings["share"] if density is None else density
        count = min(atoms, max(1, round(share * atoms)))
        index = u.abs().topk(count, dim=-1).indices
        return torch.zeros_like(u).scatter(-1, index, u.gather(-1, index))
