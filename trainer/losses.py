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


class QuietTerm:
    """Mean over sites of E‖ΔO‖² on quiet rows / E‖ΔO‖² on the others (denominator detached); our choice (method).

    One object a step, called with each micro-batch's updates. The mean of its values over all parts of the step (micro-batches
    × processes) is the term of the whole batch: a part may hold few quiet rows, or none. The denominator is the mean over what
    the step has shown so far, in all processes; with one micro-batch that is the whole batch's.
    """

    def __init__(self, quiet_rows: int, parts: int = 1, mean: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        """`quiet_rows` of the whole step; `parts` it is split into; `mean` averages a tensor over processes."""
        self.quiet_rows, self.parts, self.mean = quiet_rows, parts, mean
        self.sums: Tensor | float = 0.0  # (sites + 1) so far: energies of the other rows, and their number

    def __call__(self, updates: dict[str, Tensor], quiet: Tensor) -> Tensor:
        """updates: ΔO (B, ..., d) by site; quiet (B,) bool → ()"""
        energies = torch.stack([update.float().square().flatten(1).mean(1) for update in updates.values()])  # (sites, B)
        # One exchange for all sites; sums, as processes may hold different numbers of rows of a kind.
        counted = torch.cat([energies.detach(), torch.ones_like(energies[:1])])
        self.sums = self.sums + self.mean(counted[:, ~quiet].sum(1))
        # A fresh adapter's update is zero on all rows: nothing to quieten yet.
        concept = (self.sums[:-1] / self.sums[-1]).clamp(min=1e-12)
        return (energies[:, quiet].sum(1) * (self.parts / max(1, self.quiet_rows)) / concept).mean()


def quiet_term(updates: dict[str, Tensor], quiet: Tensor) -> Tensor:
    """The term of a batch that is not split: ΔO (B, ..., d) by site, quiet (B,) bool → ()."""
    return QuietTerm(int(quiet.sum()))(updates, quiet)
