"""Which atoms to keep: by order (importance or greedy) and amount, or by address; everywhere or in some layers.

The sets of a growing amount are nested, as all come from one order, so a slider never swaps one atom for another.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .adapter import SparseAdapter
from .addresses import resolve, resolve_layers
from .errors import SelectionError
from .greedy import energy_kept, greedy_order, has_moments

ORDERS = ("importance", "greedy")
AMOUNTS = ("keep", "top", "importance_share", "threshold", "atoms")


@dataclass(frozen=True)
class Selection:
    """What to keep. Give one of `keep`, `top`, `importance_share`, `threshold` and `atoms`.

    `per_site` takes the share or number in every site; `layers` (addresses such as "L4-L9") considers the atoms there only,
    all others go; `invert` keeps exactly what would have gone. `order` is "importance" (the editing slider) or "greedy" (the
    compressor, for which a refit is meant).
    """

    keep: float | None = None  # share of the atoms considered, above 0 and at most 1
    top: int | None = None  # number of atoms; 0 is the bare base
    importance_share: float | None = None  # the fewest atoms that hold this share of the importance considered, 0 to 1
    threshold: float | None = None  # least importance
    atoms: str | None = None  # addresses
    order: str = "importance"
    per_site: bool = False
    layers: str | None = None
    invert: bool = False

    def __post_init__(self) -> None:
        given = [name for name in AMOUNTS if getattr(self, name) is not None]
        if len(given) != 1:
            what = f"{' and '.join(given)} each say which atoms to keep" if given else "nothing says which atoms to keep"
            raise SelectionError(f"{what}; give exactly one of {', '.join(AMOUNTS)}.")
        if self.keep is not None and not 0 < self.keep <= 1:
            raise SelectionError(f"a share of {self.keep:g} was asked for; give one above 0 and at most 1, such as 0.1 for a tenth of the atoms.")
        if self.top is not None and self.top < 0:
            raise SelectionError(f"{self.top} atoms were asked for; give a number of 0 or more.")
        if self.threshold is not None and self.threshold != self.threshold:
            raise SelectionError("the threshold is not a number; give the least importance an atom must have.")
        if self.order not in ORDERS:
            raise SelectionError(f"order {self.order!r} is unknown; choose {' or '.join(ORDERS)}.")
        if self.importance_share is not None and not 0 <= self.importance_share <= 1:
            raise SelectionError(f"a share of {self.importance_share:g} of the importance was asked for; give one from 0 to 1.")
        if (self.threshold is not None or self.importance_share is not None) and self.order != "importance":
            raise SelectionError("thresholds and shares of the importance go with the order 'importance'; leave the order as it is.")
        if self.importance_share is not None and self.per_site:
            raise SelectionError("a share of the importance is over all sites together; do not ask for it per site.")


@dataclass(frozen=True)
class SelectionResult:
    """`masks` (m) by site key, true where an atom is kept. `energy_kept` is None where the adapter has no moments."""

    masks: dict[str, Tensor]
    kept: int
    total: int
    energy_kept: float | None
    importance_kept: float
    text: str
    order: str = "importance"

    def gains(self) -> dict[str, Tensor]:
        """For `Attachment.set_gains`: 1 for what is kept, 0 for what is not."""
        return {key: mask.float() for key, mask in self.masks.items()}


def rank_atoms(adapter: SparseAdapter, order: str = "importance") -> list[tuple[str, int]]:
    """(site key, row) of all atoms, best first; equal ones in the sites' order.

    Raises SelectionError where the adapter does not hold what the order needs.
    """
    if order == "greedy":
        return greedy_order(adapter).atoms
    if order != "importance":
        raise SelectionError(f"order {order!r} is unknown; choose {' or '.join(ORDERS)}.")
    importance = {key: site.importance.detach().cpu().double() for key, site in adapter.sites.items()}
    places = [(key, row) for key, values in importance.items() for row in range(len(values))]
    if not places:
        return []
    values = torch.cat(list(importance.values()))
    if not bool((values > 0).any()):
        raise SelectionError("the adapter holds no importance yet; gather it on images or prompts before ranking its atoms.")
    return [places[i] for i in torch.argsort(values, descending=True, stable=True).tolist()]


def strongest_atoms(adapter: SparseAdapter, count: int, masks: Mapping[str, Tensor] | None = None) -> list[tuple[str, int, float]]:
    """(site key, row, importance) of the `count` most important atoms, of those where `masks` (m) are true; equal ones in the sites' order."""
    values = [site.importance.detach().cpu().float() for site in adapter.sites.values()]
    if masks is not None:
        values = [value.masked_fill(~masks[key].cpu(), -1.0) for key, value in zip(adapter.sites, values, strict=True)]
    every = torch.cat(values) if values else torch.zeros(0)
    best = torch.argsort(every, descending=True, stable=True)[:count].tolist()
    keys, starts = list(adapter.sites), [0, *itertools.accumulate(map(len, values))]
    sites = [bisect.bisect_right(starts, place) - 1 for place in best]
    return [(keys[site], place - starts[site], float(every[place])) for place, site in zip(best, sites, strict=True) if every[place] >= 0]


def select(adapter: SparseAdapter, selection: Selection, refit: bool = False) -> SelectionResult:
    """The atoms that `selection` keeps. `refit`: `energy_kept` is what remains after the refit that `prune` can do.

    Raises SelectionError or AddressError for a selection that cannot be made.
    """
    considered = set(adapter.sites) if selection.layers is None else resolve_layers(adapter, selection.layers)
    masks = {key: torch.zeros(site.atoms, dtype=torch.bool) for key, site in adapter.sites.items()}
    if selection.atoms is not None:
        for key, mask in resolve(adapter, selection.atoms).items():
            if key in considered:
                masks[key] = mask
    elif selection.threshold is not None:
        for key in considered:
            masks[key] = adapter.sites[key].importance.detach().cpu() >= selection.threshold
    else:
        _take(adapter, selection, considered, masks)
    if selection.invert:
        masks = {key: ~mask for key, mask in masks.items()}
    return describe(adapter, masks, selection.order, refit)


def _take(adapter: SparseAdapter, selection: Selection, considered: set[str], masks: dict[str, Tensor]) -> None:
    """The first ones of the order, by number or share."""
    sizes = {key: adapter.sites[key].atoms for key in considered}
    if selection.importance_share is not None:
        room = {"": _holding(adapter, selection.importance_share, considered)}
    elif selection.per_site:
        room = {key: _amount(selection, size) for key, size in sizes.items()}
    else:
        room = {"": _amount(selection, sum(sizes.values()))}
    if selection.keep == 1 or selection.importance_share == 1:
        for key, size in sizes.items():
            masks[key] = torch.ones(size, dtype=torch.bool)
        return
    rows: dict[str, list[int]] = {}
    for key, row in rank_atoms(adapter, selection.order) if any(room.values()) else []:
        place = key if selection.per_site else ""
        if key in considered and room[place] > 0:
            room[place] -= 1
            rows.setdefault(key, []).append(row)
    for key, chosen in rows.items():
        masks[key][chosen] = True


def _holding(adapter: SparseAdapter, share: float, considered: set[str]) -> int:
    """How many of the most important atoms hold `share` of the importance."""
    values = torch.cat([adapter.sites[key].importance.detach().cpu().double() for key in sorted(considered)])
    if share == 0 or not len(values):
        return 0
    held = values.sort(descending=True).values.cumsum(0)
    return int((held < share * held[-1] * (1 - 1e-12)).sum()) + 1


def _amount(selection: Selection, available: int) -> int:
    if selection.top is not None:
        return min(selection.top, available)
    assert selection.keep is not None
    # A share above 0 keeps something, else the smallest of several small steps would show nothing.
    return min(available, max(1, round(selection.keep * available)))


def describe(adapter: SparseAdapter, masks: dict[str, Tensor], order: str = "importance", refit: bool = False) -> SelectionResult:
    """The result for given masks (m) by site key: counts, energy, and one line for people."""
    total = adapter.atom_count
    kept = sum(int(mask.sum()) for mask in masks.values())
    importance = {key: site.importance.detach().cpu().double() for key, site in adapter.sites.items()}
    whole = sum(float(values.sum()) for values in importance.values())
    part = sum(float(values[masks[key]].sum()) for key, values in importance.items())
    importance_kept = part / whole if whole > 0 else (1.0 if kept == total else 0.0)
    energy = energy_kept(adapter, masks, refit and has_moments(adapter))
    share = kept / total if total else 1.0
    used = sum(1 for mask in masks.values() if bool(mask.any()))
    text = f"keeps {kept} of {total} atoms ({share:.1%}) at {used} of {len(masks)} sites: "
    if energy is not None:
        text += f"{energy:.1%} of the output's energy{' after refit' if refit else ''}"
    else:
        text += f"{importance_kept:.1%} of the importance (the energy is not known, the adapter holds no usable moments)"
    return SelectionResult(masks, kept, total, energy, importance_kept, text, order)
