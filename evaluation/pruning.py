"""What really smaller adapters keep, in both orders of atoms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from ..sparsedict_core import Selection, SelectionResult, SparseAdapter, prune, select
from .suite import Score, Suite


def pruned_scores(suite: Suite, denoiser: nn.Module, adapter: SparseAdapter, shares: Sequence[float]) -> Iterator[tuple[str, float, SelectionResult, Score]]:
    """(order, share, what was kept, score): by importance with a bare mask, and greedy with refit."""
    for order in ("importance", "greedy"):
        refit = order == "greedy"
        for share in shares:
            result = select(adapter, Selection(keep=share, order=order), refit=refit)
            with prune(adapter, result, refit=refit).attach(denoiser, component="transformer"):
                yield order, share, result, suite.score()
