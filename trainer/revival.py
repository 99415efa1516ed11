"""Dead atoms: counted, and started anew from where the site's inputs are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..sparsedict_core.adapter import SparseAdapter


class DeadAtoms:
    """Steps since each atom last fired, by site."""

    def __init__(self, adapter: SparseAdapter) -> None:
        self.idle = {key: torch.zeros(site.atoms, dtype=torch.int32) for key, site in adapter.sites.items()}
        self._fired: dict[str, Tensor] = {}

    def observe(self, key: str, coefficients: Tensor) -> None:
        """Note which atoms fired in a forward; coefficients (..., k) of the first k atoms."""
        fired = (coefficients.detach() != 0).flatten(0, -2).any(0).cpu()
        whole = self._fired.setdefault(key, torch.zeros(len(self.idle[key]), dtype=torch.bool))
        whole[: len(fired)] |= fired

    def end_step(self, prefixes: dict[str, int] | None, anywhere: Callable[[Tensor], Tensor] = lambda fired: fired) -> int:
        """Count the step; returns how many atoms did not fire in it. Atoms outside a prefix are not counted.

        `anywhere` tells whether an atom fired in any process: all must revive the same atoms, or their adapters part.
        """
        silent = 0
        for key, idle in self.idle.items():
            if key not in self._fired:
                continue
            fired = anywhere(self._fired[key])
            used = (prefixes or {}).get(key, len(idle))
            idle[:used] += 1
            idle[fired] = 0
            silent += int((~fired[:used]).sum())
        self._fired = {}
        return silent

    def forget_step(self) -> None:
        """Drop what was noted in a step that is given up."""
        self._fired = {}

    @torch.no_grad()
    def revive(self, adapter: SparseAdapter, optimiser: torch.optim.Optimizer, after: int, generator: torch.Generator) -> int:
        """Draw the encoder rows of atoms that were idle for `after` steps anew, clear their optimiser state; how many."""
        count = 0
        for key, site in adapter.sites.items():
            rows = (self.idle[key] >= after).nonzero().flatten()
            if not len(rows):
                continue
            count += len(rows)
            weight = site.encoder_weight
            fresh = torch.randn(len(rows), weight.shape[1], generator=generator) / weight.shape[1] ** 0.5
            # A flipped sign alone brings half of them back; their reach is kept.
            weight[rows] = fresh.to(weight)
            site.encoder_bias[rows] = 0
            for parameter in (site.encoder_weight, site.encoder_bias, site.dictionary_weight):
                for value in optimiser.state.get(parameter, {}).values():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        value[rows] = 0
            self.idle[key][rows] = 0
        return count
