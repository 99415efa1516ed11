"""The loss per row of a batch, and its weights."""

from __future__ import annotations

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


def quiet_term(updates: dict[str, Tensor], quiet: Tensor, reduce=lambda x: x) -> Tensor:
    """Mean over sites of E‖ΔO‖² on quiet rows / E‖ΔO‖² on the others (denominator detached); our choice (method).

    updates: ΔO (B, ..., d) by site; quiet (B,) bool. `reduce` averages a number over processes.
    """
    terms = []
    for update in updates.values():
        energy = update.float().square().flatten(1).mean(1)
        concept = reduce(energy[~quiet].detach().mean())
        # A fresh adapter's update is zero on all rows: nothing to quieten yet.
        terms.append(energy[quiet].mean() / concept.clamp(min=1e-12))
    return torch.stack(terms).mean()
