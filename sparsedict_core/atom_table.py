"""An adapter's atoms as plain values, for a user interface: sites, ids, importance, firing rates and orders, without any weights."""

from __future__ import annotations

from typing import Any

from .adapter import SparseAdapter
from .addresses import site_labels
from .greedy import greedy_order, has_moments
from .shown_text import shown

#: Digits that give a float32 back exactly, so that ties and thresholds fall as they do here.
DIGITS = 9
RATE_DIGITS = 4  # of what is only shown


def atom_table(adapter: SparseAdapter, greedy: bool = False) -> dict[str, Any]:
    """For JSON. Atoms are numbered through all sites in the sites' order; `greedy` lists these numbers, best first.

    `greedy` is None where it was not asked for, or where the adapter has no moments to compute it from.
    """
    labels = site_labels(adapter)
    return {
        "title": shown(adapter.metadata.get("title", "")),
        "trigger_words": [shown(word) for word in adapter.trigger_words],
        "base_family": shown(adapter.metadata.get("base_family", "")),
        "members": [member.name for member in adapter.members],
        "atoms": adapter.atom_count,
        "has_moments": has_moments(adapter),
        "sites": [
            {
                "key": key,
                "label": labels[key],
                "layer": site.name.layer,
                "stream": site.name.stream,
                "member": site.member,
                "atom_ids": site.atom_ids.tolist(),
                "importance": [float(f"{value:.{DIGITS}g}") for value in site.importance.detach().float().tolist()],
                "firing": None if site.firing is None else [float(f"{value:.{RATE_DIGITS}g}") for value in site.firing.float().tolist()],
            }
            for key, site in adapter.sites.items()
        ],
        "greedy": _greedy(adapter) if greedy and has_moments(adapter) else None,
    }


def _greedy(adapter: SparseAdapter) -> dict[str, list[float]]:
    first, count = {}, 0
    for key, site in adapter.sites.items():
        first[key] = count
        count += site.atoms
    found = greedy_order(adapter)
    return {"order": [first[key] + row for key, row in found.atoms], "energy": [round(value, 5) for value in found.energy.tolist()]}
