"""The loss per row of a batch, and its weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def row_losses(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each row: (B, c, h, w) twice → (B,). In fp32, whatever the model computes in."""
    return (predicted.float() - target.float()).square().flatten(1).mean(1)


def min_snr_weights(snr: Tensor, gamma: float | None, prediction: str) -> Tensor:
    """Weights (B,) after Hang et al., arXiv 2303.09556; ones without gamma.

    epsilon: min(snr, γ)/snr; v: min(snr, γ)/(snr + 1). A flow's target weighs its levels already, so gamma is not used there.
    """
    if gamma is None or prediction == "flow":
        return torch.ones_like(snr)
    clipped = snr.clamp(max=gamma)
    return clipped / snr.clamp(min=1e-8) if prediction == "epsilon" else clipped / (snr + 1)


def quiet_term(updates: dict[str, Tensor], quiet: Tensor, reduce: Callable[[Tensor], Tensor] = lambda value: value) -> Tensor:
    """Mean over sites of E‖ΔO‖² on quiet rows / E‖ΔO‖² on the others (denominator detached); our choice (method).

    updates: ΔO (B, ..., d) by site; quiet (B,) bool. `reduce` averages numbers over processes. 0 where either kind is missing.
    """
    energies = torch.stack([update.float().square().flatten(1).mean(1) for update in updates.values()])  # (sites, B)
    if not bool(quiet.any()) or bool(quiet.all()):
        return energies.sum() * 0
    concept = reduce(energies[:, ~quiet].detach().mean(1))
    # A fresh adapter's update is zero on all rows: nothing to quieten yet.
    return (energies[:, quiet].mean(1) / concept.clamp(min=1e-12)).mean()
