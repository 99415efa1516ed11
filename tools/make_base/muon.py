"""Muon (Jordan and others, 2024) in fp32: torch's own computes in bf16, which many processors only emulate."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

MOMENTUM = 0.95
# The quintic that lifts small singular values most. Five rounds are usual; after three the large directions are as good as equal, at three fifths of the cost.
QUINTIC = (3.4445, -4.7750, 2.0315)
ROUNDS = 3


def orthogonal(matrix: Tensor) -> Tensor:
    """Roughly the nearest matrix with equal singular values, (n, m)."""
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal, sized as AdamW's is; for matrices (n, m)."""

    def __init__(self, parameters: Iterable[Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step from the gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                momentum.lerp_(parameter.grad, 1 - MOMENTUM)
                update = orthogonal(parameter.grad.lerp(momentum, MOMENTUM))
                rate = group["lr"]
                parameter.mul_(1 - rate * group["weight_decay"]).add_(update, alpha=-rate * 0.2 * max(parameter.shape) ** 0.5)
