"""Nested training: some steps use only the first atoms of a site, so that few atoms come to carry the concept."""

from __future__ import annotations

import torch

from ..sparsedict_core.adapter import SparseAdapter


def draw_prefixes(adapter: SparseAdapter, share: float, octaves: float, generator: torch.Generator) -> dict[str, int] | None:
    """For `share` of the steps, by site: how many atoms are used, a fraction 2^(−octaves·U); else None. Our choice (docs/method.md)."""
    # Both draws are made at every step, so that the plan of later steps does not hang on this one.
    chosen = torch.rand((), generator=generator).item() < share
    uniform = torch.rand(len(adapter.sites), generator=generator).tolist()
    if not chosen:
        return None
    return {
        key: max(1, round(site.atoms * 2 ** (-octaves * u)))
        for (key, site), u in zip(adapter.sites.items(), uniform, strict=True)
        if site.atoms
    }
