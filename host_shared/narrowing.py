"""A choice of atoms among those that earlier choices have left."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.gains import alive
from ..sparsedict_core.selection import Selection, SelectionResult, describe, select


def share_selection(share: float, **how: object) -> Selection:
    """A share of the atoms; 0 keeps none."""
    return Selection(keep=share, **how) if share > 0 else Selection(top=0, **how)


def select_left(adapter: SparseAdapter, gains: Mapping[str, Tensor] | None, selection: Selection) -> SelectionResult:
    """What `selection` takes of the atoms whose gain is not 0; the result is over all of the adapter's atoms.

    `gains` (m) are by site key. Raises SelectionError or AddressError.
    """
    left = alive(adapter, gains)
    if all(bool(mask.all()) for mask in left.values()):
        return select(adapter, selection)
    rest = adapter.clone()
    for key, site in rest.sites.items():
        site.keep(left[key])
    masks = {}
    for key, mask in select(rest, selection).masks.items():
        masks[key] = torch.zeros_like(left[key])
        masks[key][left[key]] = mask
    return describe(adapter, masks, selection.order)
