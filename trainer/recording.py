"""What the loop keeps of a forward: of each site's ΔO the rows' energies at most, as ΔO of all sites can fill a card.

Knows the attachment; not what the energies are for.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..sparsedict_core.attachment import Attachment
from ..sparsedict_core.site import SparseSite
from ..sparsedict_core.training_state import TrainingSession
from .losses import row_energies


class LoopSession(TrainingSession):
    """A session whose records hold no ΔO; `energies` holds their `row_energies` (B,) by site, with their graph, where `quiet`."""

    def __init__(self, attachment: Attachment, quiet: bool) -> None:
        super().__init__(attachment)
        self.energies: dict[str, Tensor] = {}
        if quiet:
            attachment.tap(self._note_energies)

    def begin(self, density: float, prefixes: Mapping[str, int] | None = None, rows: int | None = None) -> None:
        super().begin(density, prefixes, rows)
        self.energies = {}

    def reset(self) -> None:
        super().reset()
        self.energies = {}

    def observe(self, key: str, site: SparseSite, u: Tensor, coefficients: Tensor, update: Tensor) -> None:
        super().observe(key, site, u, coefficients, update)
        self._record.updates.pop(key, None)

    def _note_energies(self, key: str, site: SparseSite, x: Tensor, coefficients: Tensor, update: Tensor, output: Tensor) -> None:
        if self.density is None or not torch.is_grad_enabled():
            return
        # Also where a recomputed block runs a second time: it must keep the same tensors for the backward as the first time.
        energies = row_energies(update)
        if self.recording:
            self.energies[key] = energies
