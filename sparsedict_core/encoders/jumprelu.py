"""JumpReLU with an L0 penalty: C = u where u > θ_j, else 0; θ learned per atom by straight-through gradients.

After Rajamanoharan et al., "Jumping Ahead: Improving Reconstruction Fidelity with JumpReLU Sparse Autoencoders" (2024).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import Function

from ..bounds import Bounds
from .base import Encoder


def _window(u: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """The rectangle kernel's mask, ½ either side of θ in units of the bandwidth."""
    return ((u - threshold).abs() < bandwidth / 2).to(u.dtype)


class _JumpRelu(Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(u, threshold)
        ctx.bandwidth = bandwidth
        return u * (u > threshold)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad,) = grads
        u, threshold = ctx.saved_tensors
        grad_threshold = -(threshold / ctx.bandwidth) * _window(u, threshold, ctx.bandwidth) * grad
        return grad * (u > threshold), grad_threshold.sum_to_size(threshold.shape), None


class _Step(Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(u, threshold)
        ctx.bandwidth = bandwidth
        return (u > threshold).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        (grad,) = grads
        u, threshold = ctx.saved_tensors
        grad_threshold = -(1.0 / ctx.bandwidth) * _window(u, threshold, ctx.bandwidth) * grad
        return None, grad_threshold.sum_to_size(threshold.shape), None


class JumpReluEncoder(Encoder):
    name = "jumprelu"
    one_sided = True
    defaults: ClassVar[dict[str, Any]] = {"initial_threshold": 0.1, "bandwidth": 0.1}
    bounds: ClassVar[dict[str, Bounds]] = {"initial_threshold": Bounds(0, 1000), "bandwidth": Bounds(0.0001, 1000)}
    learned = ("threshold",)

    def initial_threshold(self, atoms: int) -> Tensor:
        return torch.full((atoms,), float(self.settings["initial_threshold"]))

    def coefficients(self, u: Tensor, threshold: Tensor, density: float | None = None, gram: Tensor | None = None) -> Tensor:
        return _JumpRelu.apply(u, threshold.to(u.dtype).clamp(min=0), self.settings["bandwidth"])

    def penalty(self, c: Tensor, u: Tensor | None = None, threshold: Tensor | None = None) -> Tensor | None:
        if u is None or threshold is None:
            raise ValueError("the L0 penalty of jumprelu needs u and the threshold")
        fired: Tensor = _Step.apply(u, threshold.to(u.dtype).clamp(min=0), self.settings["bandwidth"])
        return fired.sum(-1).mean()
