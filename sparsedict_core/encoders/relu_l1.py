"""The classic sparse autoencoder: C = ReLU(u), made sparse by an L1 penalty and the learned bias."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .base import Encoder, l1_penalty


class ReluL1Encoder(Encoder):
    name = "relu_l1"
    one_sided = True

    def coefficients(self, u: Tensor, threshold: Tensor, density: float | None = None, gram: Tensor | None = None) -> Tensor:
        return F.relu(u)

    def penalty(self, c: Tensor, u: Tensor | None = None, threshold: Tensor | None = None) -> Tensor | None:
        return l1_penalty(c)
