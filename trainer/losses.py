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


def min_snr_weights(snr: Tensor, gamma: float | None, prediction: str) -> Tensor:
    """Weights (B,) after Hang et al., arXiv 2303.09556; ones without gamma.

    epsilon: min(snr, γ)/snr; v: min(snr, γ)/(snr + 1). A flow's target weighs its levels already, so gamma is not used there.
    """
    if gamma is None or prediction == "flow":
        return torch.ones_like(snr)
    clipped = snr.clamp(max=gamma)
    return clipped / snr.clamp(min=1e-8) if prediction == "epsilon" else clipped / (snr + 1)


#: A site that answers quiet rows this many times as loudly as the others; in sound trainings none does once the term counts.
LOUDEST = 3.0


class QuietTerm:
    """Mean over sites of E‖ΔO‖² on quiet rows / E‖ΔO‖² on the others (denominator detached); our choice (docs/method.md).

    Where that ratio is above LOUDEST its whole gradient is used, bounded: LOUDEST · d log ratio. With the denominator detached, what
    quietens such a site takes as much from the concept's rows, the ratio stays, and the pull grows without end as both vanish.

    One object a step, called with each micro-batch's energies. The mean of its values over all parts of the step (micro-batches
    × processes) is the term of the whole batch: a part may hold few quiet rows, or none. The energies that it is measured by are
    means over what the step has shown so far. Processes exchange theirs at the first and at the last micro-batch, where the quiet
    rows are if there are few; in between each has its own beside those of the first. What that costs: docs/method.md.
    """

    def __init__(self, quiet: int, others: int, parts: int = 1, mean: Callable[[Tensor], Tensor] | None = None, micro_batches: int = 1) -> None:
        """Rows of the whole step by kind, the `parts` it is split into; `mean` averages a tensor over several processes, each with so many
        `micro_batches`."""
        self.quiet_scale, self.other_scale = parts / max(1, quiet), parts / max(1, others)
        self.mean, self.micro_batches, self.calls = mean, micro_batches, 0
        # (2, sites + 1): energies of the other and of the quiet rows, and their numbers; those of all processes, and those not exchanged yet.
        self.shared: Tensor | None = None
        self.own: Tensor | None = None

    def __call__(self, energies: Sequence[Tensor], quiet: Tensor) -> Tensor:
        """The sites' `row_energies` (B,); quiet (B,) bool, on the CPU → ()"""
        rows = torch.stack(list(energies))  # (sites, B)
        # Masks rather than indices: how many rows are of a kind is no question to ask a device.
        kinds = torch.stack([~quiet, quiet]).to(rows.device, rows.dtype, non_blocking=True)
        others, still = (rows * kinds[:, None]).sum(-1)
        seen = torch.cat([torch.stack([others, still]).detach(), kinds.sum(-1, keepdim=True)], dim=1)
        self.calls += 1
        self.own = seen if self.own is None else self.own + seen
        if self.mean is not None and self.calls in (1, self.micro_batches):
            mean = self.mean(self.own)
            self.shared, self.own = mean if self.shared is None else self.shared + mean, None
        sums = torch.stack([part for part in (self.shared, self.own) if part is not None]).sum(0)
        # A fresh adapter's update is zero on all rows: nothing to quieten yet.
        concept, loudness = (sums[:, :-1] / sums[:, -1:].clamp(min=1e-12)).clamp(min=1e-12)
        ratio = still * self.quiet_scale / concept
        whole = LOUDEST * (still * self.quiet_scale / loudness - others * self.other_scale / concept)
        gradient = torch.where(loudness > LOUDEST * concept, whole, ratio)
        return (ratio.detach() + gradient - gradient.detach()).mean()


def quiet_term(updates: dict[str, Tensor], quiet: Tensor) -> Tensor:
    """The term of a batch that is not split, from ΔO (B, ..., d) by site itself; quiet (B,) bool → ()."""
    still = int(quiet.sum())
    return QuietTerm(still, len(quiet) - still)([update.float().square().flatten(1).mean(1) for update in updates.values()], quiet)
