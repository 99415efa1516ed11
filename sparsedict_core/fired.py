"""Which atoms fired while statistics and maps were gathered, strongest first: what a probe shows, in any host."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .adapter import SparseAdapter
from .importance import ImportanceStats
from .token_grid import on_grid


@dataclass(frozen=True)
class FiredAtom:
    """One atom: norm it added a token, the same relative to the output's, share of the tokens it fires at, norm by bucket."""

    key: str
    row: int
    norm: float
    relative: float
    fires: float
    by_bucket: list[float]
    map: Tensor | None = None  # (h, w); None for what is not in a place, and for what is weaker than those that have one


def fired_atoms(
    stats: ImportanceStats, adapter: SparseAdapter, maps: Mapping[str, Tensor], latent_size: tuple[int, ...], *, prompt: Hashable = None,
    buckets: Sequence[Hashable] = (), gains: Mapping[str, Tensor] | None = None, text_first: bool = True, mapped: int = 256,
) -> list[FiredAtom]:  # fmt: skip
    """All atoms that added something for `prompt`, the strongest `mapped` that are in a place with a map. `maps`: mean |C| (tokens, m) by site key, for the sites whose tokens are in a place;
    `latent_size` (h, w) or (frames, h, w). `gains` are what the atoms were used with."""
    found, seen = [], stats.buckets
    for key in stats.site_keys:
        site = adapter.sites[key]
        if not site.atoms:
            continue
        gain = (gains or {}).get(key)
        gain = torch.ones(site.atoms).double() if gain is None else gain.abs().double()
        norms, relative = stats.contribution(adapter, key, prompt=prompt) * gain, stats.relative(adapter, key, prompt=prompt) * gain
        fires = stats.firing_rate(key, prompt=prompt)
        parts = [stats.contribution(adapter, key, bucket, prompt) * gain if bucket in seen else torch.zeros_like(norms) for bucket in buckets]
        for row in norms.argsort(descending=True).tolist():
            if norms[row] <= 0:
                break
            found.append(FiredAtom(key, row, float(norms[row]), float(relative[row]), float(fires[row]), [float(part[row]) for part in parts]))
    found.sort(key=lambda atom: -atom.norm)
    for number, atom in enumerate(found):
        if mapped and atom.key in maps:
            place = on_grid(maps[atom.key][:, atom.row], latent_size, text_first)
            found[number] = replace(atom, map=place)
            mapped -= place is not None
    return found
