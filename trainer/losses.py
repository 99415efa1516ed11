"""The loss per row of a batch, and its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def row_losses(predicted: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean squared error of each row: (B, c, h, w) twice → (B,). In fp32, whatever the model computes in.

    `weights` (B, 1, h, w) make it a weighted mean over the picture, so that a small mask counts as much as a large one.
    """
    errors = (predicted.float() - target.float()).square()
    if weights is None:
        return errors.flatten(1).mean(1)
    return (errors.mean(1, keepdim=True) * weights).flatten(1).sum(1) / weights.flatten(1).sum(1).clamp(min=1e-6)


def row_energies(update: Tensor) -> Tensor:
    """E‖ΔO‖² per channel of each row: (B, ..., d) → (B,), in fp32."""
    return update.float().square().flatten(1).mean(1)


def min_snr_weights(snr: Tensor, gamma: float | None, prediction: str) -> Tensor:
    """Weights (B,) after Hang et al., arXiv 2303.09556; ones without gamma.

    epsilon: min(snr, γ)/snr; v: min(snr, γ)/(snr + 1). A flow's target weighs its levels already, so gamma is not used there.
    """
    if gamma is None or prediction == "flow":
        return torch.ones_like(snr)
    clipped = snr.clamp(max=gamma)
    return clipped / snr.clamp(min=1e-8) if prediction == "epsilon" else clipped / (snr + 1)


#: A site that answers quiet rows this many times as loudly as the others; in sound trainings none does once the term counts.
LOUD = 3.0


class QuietTerm:
    """Mean over sites of E‖ΔO‖² on quiet rows / E‖ΔO‖² on the others (denominator detached); our choice (method).

    Where that ratio is above LOUD its whole gradient is used, bounded: LOUD · d log ratio. With the denominator detached, what
    quietens such a site takes as much from the concept's rows, the ratio stays, and the pull grows without end as both vanish.

    One object a step, called with each micro-batch's updates. The mean of its values over all parts of the step (micro-batches
    × processes) is the term of the whole batch: a part may hold few quiet rows, or none. The energies that it is measured by are
    means over what the step has shown so far, in all processes; with one micro-batch that is the whole batch's.
    """

    def __init__(self, quiet: Tensor, parts: int = 1, mean: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        """`quiet` (B) bool tells the rows of the whole step; `parts` it is split into; `mean` averages a tensor over processes."""
        still = int(quiet.sum())
        self.quiet_scale, self.other_scale = parts / max(1, still), parts / max(1, len(quiet) - still)
        self.mean = mean
        self.sums: Tensor | float = 0.0  # (2, sites + 1) so far: energies of the other and of the quiet rows, and their numbers

    def __call__(self, updates: dict[str, Tensor], quiet: Tensor) -> Tensor:
        """updates: ΔO (B, ..., d) by site; quiet (B,) bool → ()"""
        return self.of_energies([row_energies(update) for update in updates.values()], quiet)

    def of_energies(self, by_site: Sequence[Tensor], quiet: Tensor) -> Tensor:
        """The same from the sites' `row_energies` (B,); quiet (B,) bool → ()"""
        energies = torch.stack(list(by_site))  # (sites, B)
        others, still = energies[:, ~quiet].sum(1), energies[:, quiet].sum(1)
        # One exchange for all sites; sums, as processes may hold different numbers of rows of a kind.
        counts = torch.stack([(~quiet).sum(), quiet.sum()]).to(energies)
        self.sums = self.sums + self.mean(torch.cat([torch.stack([others, still]).detach(), counts[:, None]], dim=1))
        # A fresh adapter's update is zero on all rows: nothing to quieten yet.
        concept, loudness = (self.sums[:, :-1] / self.sums[:, -1:].clamp(min=1e-12)).clamp(min=1e-12)
        ratio = still * self.quiet_scale / concept
        whole = LOUD * (still * self.quiet_scale / loudness - others * self.other_scale / concept)
        gradient = torch.where(loudness > LOUD * concept, whole, ratio)
        return (ratio.detach() + gradient - gradient.detach()).mean()


def quiet_term(updates: dict[str, Tensor], quiet: Tensor) -> Tensor:
    """The term of a batch that is not split: ΔO (B, ..., d) by site, quiet (B,) bool → ()."""
    return QuietTerm(quiet)(updates, quiet)
