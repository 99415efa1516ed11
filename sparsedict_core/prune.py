"""A smaller adapter from a selection: rows really removed, addresses kept, optionally refitted to the full output."""

from __future__ import annotations

from typing import Any

from .adapter import SparseAdapter
from .errors import SelectionError
from .greedy import energy_kept, moments_of, refit_site
from .selection import SelectionResult


def prune(adapter: SparseAdapter, result: SelectionResult, refit: bool = False) -> SparseAdapter:
    """A new adapter with the atoms that `result` keeps, each site in its smaller form; `adapter` stays as it is.

    `refit` changes the kept rows so that they come as near to the full adapter's output as they can, on the calibration data
    that the moments were gathered on. What was done, and the energy kept, is added to the metadata's lineage.
    Raises SelectionError if the masks are not this adapter's, or a refit is asked for and moments are missing.
    """
    for key, site in adapter.sites.items():
        if key not in result.masks or len(result.masks[key]) != site.atoms:
            raise SelectionError(f"the selection does not fit the adapter at {key}; select on the adapter that is pruned.")
    if refit:
        moments_of(adapter)
    energy = energy_kept(adapter, result.masks, refit)
    smaller = adapter.clone()
    for key, site in smaller.sites.items():
        if refit:
            refit_site(site, result.masks[key])
        else:
            site.keep(result.masks[key])
        site.fold()
    step: dict[str, Any] = {"operation": "prune", "order": result.order, "refit": refit, "kept": result.kept, "of": result.total}
    if energy is not None:
        step["energy_kept"] = round(energy, 6)
    smaller.add_step(step)
    return smaller
