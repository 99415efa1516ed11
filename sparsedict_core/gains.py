"""Gains in words, `L17[137]=1.5, L3=0`, and gains made part of an adapter for good."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .adapter import SparseAdapter
from .addresses import parse_addresses, resolve
from .bounds import MOST_STRENGTH
from .errors import AddressError, SiteError

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_NUMBER = re.compile(rf"\s*({NUMBER})\s*(?:[,;\n]\s*|$)")


def parse_gains(text: str) -> list[tuple[str, float]]:
    """(addresses, gain) in order. Raises AddressError where the text is not `addresses=number, …`."""
    found: list[tuple[str, float]] = []
    rest = text.strip()
    while rest:
        addresses, equals, after = rest.partition("=")
        number = _NUMBER.match(after)
        if not equals or number is None:
            raise AddressError(f"{rest!r} sets no gain; write addresses and a number, such as L17[137]=1.5, L3=0.")
        parse_addresses(addresses)
        gain = float(number.group(1))
        if abs(gain) > MOST_STRENGTH:
            raise AddressError(f"the gain {number.group(1)[:40]} of {addresses.strip()} is too large; give at most {MOST_STRENGTH:g}, 1 leaves an atom as it is.")
        found.append((addresses.strip(), gain))
        rest = after[number.end() :].strip()
    return found


def resolve_gains(adapter: SparseAdapter, text: str) -> dict[str, Tensor]:
    """Gains (m) by site key; 1 where `text` says nothing, the last one where it says several.

    Raises AddressError for what cannot be parsed or is not there.
    """
    gains = {key: torch.ones(site.atoms) for key, site in adapter.sites.items()}
    for addresses, gain in parse_gains(text):
        for key, mask in resolve(adapter, addresses).items():
            gains[key][mask] = gain
    return gains


def alive(adapter: SparseAdapter, gains: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Masks (m) by site key of the atoms whose gain is not 0."""
    gains = gains or {}
    return {key: gains[key] != 0 if key in gains else torch.ones(site.atoms, dtype=torch.bool) for key, site in adapter.sites.items()}


@torch.no_grad()
def bake(adapter: SparseAdapter, gains: Mapping[str, Tensor] | None) -> SparseAdapter:
    """A new adapter that does at gains of 1 what `adapter` does at `gains`: atoms of gain 0 are gone, their addresses stay free,
    the others have their gain in their row of the dictionary and in their importance. `adapter` stays as it is.

    Raises SiteError for gains that are not this adapter's, or not finite.
    """
    baked = adapter.clone()
    removed = scaled = 0
    for key, values in (gains or {}).items():
        site = baked.sites.get(key)
        if site is None or values.shape != (site.atoms,):
            raise SiteError(f"the gains do not fit the adapter at {key}; set gains on the adapter that they are used with.")
        if not bool(torch.isfinite(values).all()):
            raise SiteError(f"{key}: a gain is not finite; give numbers, 1 leaves an atom as it is and 0 removes it.")
        kept = values != 0
        removed += int((~kept).sum())
        scaled += int((kept & (values != 1)).sum())
        site.keep(kept)
        left = values[kept].to(device=site.dictionary_weight.device, dtype=torch.float32)
        trains = site.dictionary_weight.requires_grad
        weight = (site.dictionary_weight.float() * left[:, None]).to(site.dictionary_weight.dtype)
        site.dictionary_weight = nn.Parameter(weight, requires_grad=trains)
        site.importance = site.importance * left.abs().to(site.importance)
    if removed or scaled:
        step = {"operation": "gains", "removed": removed, "scaled": scaled}
        baked.add_step(step)
    return baked
