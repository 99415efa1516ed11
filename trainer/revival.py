"""Dead atoms: counted on the adapter's device, and given a fresh random encoder row."""

from __future__ import annotations

import torch
from torch import Tensor

from ..sparsedict_core.adapter import SparseAdapter


class DeadAtoms:
    """Steps since each atom last fired: of all sites in one tensor, `idle_of_all`, and by site."""

    def __init__(self, adapter: SparseAdapter) -> None:
        self._sizes = {key: site.atoms for key, site in adapter.sites.items()}
        device = next(iter(adapter.sites.values())).encoder_weight.device
        self.idle_of_all = torch.zeros(sum(self._sizes.values()), dtype=torch.int32, device=device)
        self.fired = torch.zeros_like(self.idle_of_all, dtype=torch.bool)  # in this step
        self.idle = self._by_site(self.idle_of_all)
        self._fired_at = self._by_site(self.fired)
        self._seen: set[str] = set()

    def _by_site(self, values: Tensor) -> dict[str, Tensor]:
        return dict(zip(self._sizes, values.split(list(self._sizes.values())), strict=True))

    def observe(self, key: str, coefficients: Tensor) -> None:
        """Note which atoms fired in a forward; coefficients (..., k) of the first k atoms."""
        fired = (coefficients.detach() != 0).flatten(0, -2).any(0)
        self._fired_at[key][: len(fired)].logical_or_(fired)
        self._seen.add(key)

    def end_step(self, prefixes: dict[str, int] | None, fired: Tensor | None = None, after: int = 0) -> tuple[Tensor, Tensor]:
        """Count the step: how many atoms did not fire in it, and how many have not for `after` steps (0: the former); both ().

        Atoms outside a prefix are not counted. `fired` (atoms of all sites): whether in any process, as all must revive the same atoms.
        """
        fired = self.fired if fired is None else fired
        used = [min((prefixes or {}).get(key, size), size) if key in self._seen else 0 for key, size in self._sizes.items()]
        places = [torch.arange(size) < count for size, count in zip(self._sizes.values(), used, strict=True)]
        counted = torch.cat(places).to(fired.device, non_blocking=True)
        self.idle_of_all += counted
        self.idle_of_all.masked_fill_(fired, 0)
        silent = (counted & ~fired).sum()
        self.forget_step()
        return silent, (self.idle_of_all >= after).sum() if after else silent

    def forget_step(self) -> None:
        """Drop what was noted in a step that is given up."""
        self.fired.zero_()
        self._seen.clear()

    @torch.no_grad()
    def revive(
        self, adapter: SparseAdapter, optimiser: torch.optim.Optimizer, after: int, generator: torch.Generator, idle: Tensor | None = None
    ) -> int:
        """Draw the encoder rows of atoms that were idle for `after` steps anew, clear their optimiser state; how many. `idle`: a copy of
        `idle_of_all` on the CPU, where one is at hand."""
        count = 0
        for key, values in self._by_site(self.idle_of_all.cpu() if idle is None else idle).items():
            site, rows = adapter.sites[key], (values >= after).nonzero().flatten()
            if not len(rows):
                continue
            count += len(rows)
            weight = site.encoder_weight
            fresh = torch.randn(len(rows), weight.shape[1], generator=generator) / weight.shape[1] ** 0.5
            rows = rows.to(weight.device, non_blocking=True)
            # A flipped sign alone brings half of them back; their reach is kept.
            weight.index_copy_(0, rows, fresh.to(weight.device, weight.dtype, non_blocking=True))
            site.encoder_bias.index_fill_(0, rows, 0)
            for parameter in (site.encoder_weight, site.encoder_bias, site.dictionary_weight):
                for name, value in optimiser.state.get(parameter, {}).items():
                    if not isinstance(value, Tensor) or value.numel() != parameter.numel():
                        continue
                    if name == "p0":  # where Prodigy reckons that a row began
                        value.view_as(parameter).index_copy_(0, rows, parameter[rows])
                    else:
                        value.view_as(parameter).index_fill_(0, rows, 0)
            self.idle[key].index_fill_(0, rows, 0)
        return count
