"""Atom addresses: `L17[137]`, `L3[0-15,40]`, `L4-L9`, `L17.text[5]`, `L17.image.q[5]`, `cat:L17[137]`, separated by commas.

    addresses = address { "," address }
    address   = [ member ":" ] "L" number [ "-" [ "L" ] number ] [ "." stream ] [ "[" numbers "]" ]
    stream    = name { "." name }
    numbers   = number [ "-" number ] { "," number [ "-" number ] }

The number in brackets is the atom's id, which it keeps for life, not its present row. A stream stands for the sites of that very
name; where there are none, for those below it: `ff` for `ff.up` and `ff.down`. `out` is the output of an attention without a name.
"""

from __future__ import annotations

import re
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .errors import AddressError
from .site import SparseSite

if TYPE_CHECKING:
    from .adapter import SparseAdapter

MEMBER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
STREAM_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
UNNAMED = "out"  # the stream of a site that has none, where its layer has others
DIGITS = 9  # of a number in an address, at most


@dataclass(frozen=True)
class Address:
    """One parsed address; `atoms` holds inclusive ranges, None means the whole site."""

    text: str
    first: int
    last: int
    stream: str | None = None
    atoms: tuple[tuple[int, int], ...] | None = None
    member: str | None = None


class _Parser:
    """Recursive descent over the text, one character ahead."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def fail(self, wanted: str) -> AddressError:
        found = repr(self.text[self.at]) if self.at < len(self.text) else "the end"
        return AddressError(
            f"address {self.text!r}: expected {wanted} at position {self.at + 1}, found {found}; "
            "addresses look like L17[137], L3[0-15,40], L4-L9 or cat:L17.text[5]."
        )

    def spaces(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def take(self, pattern: str) -> str | None:
        self.spaces()
        match = re.compile(pattern).match(self.text, self.at)
        if match is None:
            return None
        self.at = match.end()
        return match.group()

    def number(self, what: str) -> int:
        digits = self.take(rf"[0-9]{{1,{DIGITS}}}(?![0-9])")
        if digits is None:
            raise self.fail(what)
        return int(digits)

    def range(self, what: str, second: str = "") -> tuple[int, int]:
        start = self.number(what)
        if self.take("-") is None:
            return start, start
        if second:
            self.take(second)
        end = self.number(what)
        if end < start:
            raise AddressError(f"address {self.text!r}: the range {start}-{end} runs backwards; write {end}-{start}.")
        return start, end

    def address(self) -> Address:
        self.spaces()
        begin = self.at
        member = self.take(MEMBER_NAME.pattern + r"(?=\s*:)")
        if member is not None:
            self.take(":")
        if self.take("[Ll](?=[0-9])") is None:
            raise self.fail("a layer such as L17")
        first, last = self.range("a layer number", "[Ll]")
        stream = None
        if self.take(r"\.") is not None:
            stream = self.take(STREAM_NAME.pattern)
            if stream is None:
                raise self.fail("a stream such as text or image")
        atoms = None
        if self.take(r"\[") is not None:
            ranges = [self.range("an atom number")]
            while self.take(",") is not None:
                ranges.append(self.range("an atom number"))
            if self.take(r"\]") is None:
                raise self.fail("a comma or ]")
            atoms = tuple(ranges)
        return Address(self.text[begin : self.at].strip(), first, last, stream, atoms, member)

    def addresses(self) -> list[Address]:
        found = [self.address()]
        while self.take(",") is not None:
            found.append(self.address())
        self.spaces()
        if self.at < len(self.text):
            raise self.fail("a comma or the end")
        return found


def parse_addresses(text: str) -> list[Address]:
    """The addresses in `text`. Raises AddressError with the position of what is wrong."""
    return _Parser(text).addresses()


def resolve(adapter: SparseAdapter, text: str) -> dict[str, Tensor]:
    """Masks (m) by site key of the atoms that `text` names. Raises AddressError for what is ambiguous or not there."""
    masks = {key: torch.zeros(site.atoms, dtype=torch.bool) for key, site in adapter.sites.items()}
    for address in parse_addresses(text):
        for site in _sites_of(adapter, address):
            masks[site.key] |= _atoms_of(adapter, site, address)
    return masks


def resolve_layers(adapter: SparseAdapter, text: str) -> set[str]:
    """Keys of the sites that `text` names, such as `L4-L9` or `L0.text`; atoms cannot be named here."""
    keys: set[str] = set()
    for address in parse_addresses(text):
        if address.atoms is not None:
            raise AddressError(f"address {address.text!r} names atoms where layers are wanted; leave the bracket out.")
        keys.update(site.key for site in _sites_of(adapter, address))
    return keys


def _sites_of(adapter: SparseAdapter, address: Address) -> list[SparseSite]:
    sites = list(adapter.sites.values())
    members = [member.name for member in adapter.members]
    if address.member is not None:
        if address.member not in members:
            known = f"its members are {', '.join(members)}" if members else "the adapter is not composed and has no members"
            raise AddressError(f"address {address.text!r}: no member {address.member!r}; {known}.")
        sites = [site for site in sites if site.member == address.member]
    layers = sorted({site.name.layer for site in sites})
    for number in (address.first, address.last):
        if number not in layers:
            raise AddressError(f"address {address.text!r}: there is no layer L{number}; the layers are {ranges(layers, 'L')}.")
    sites = [site for site in sites if address.first <= site.name.layer <= address.last]
    if address.stream is not None:
        streams = sorted({site.name.stream or UNNAMED for site in sites})
        named = [site for site in sites if (site.name.stream or UNNAMED) == address.stream]
        sites = named or [site for site in sites if (site.name.stream or "").startswith(address.stream + ".")]
        if not sites:
            known = "none, leave it out" if streams == [UNNAMED] else ", ".join(streams)
            raise AddressError(f"address {address.text!r}: no stream {address.stream!r} there; the streams are {known}.")
    if address.atoms is not None:
        _refuse_ambiguous(adapter, address, sites)
    return sites


def _refuse_ambiguous(adapter: SparseAdapter, address: Address, sites: list[SparseSite]) -> None:
    by_layer: dict[int, list[SparseSite]] = {}
    for site in sites:
        by_layer.setdefault(site.name.layer, []).append(site)
    for same_layer in by_layer.values():
        if len(same_layer) > 1:
            labels = site_labels(adapter)
            options = ", ".join(labels[site.key] + "[…]" for site in same_layer)
            raise AddressError(f"address {address.text!r} is ambiguous; write one of {options}.")


def _atoms_of(adapter: SparseAdapter, site: SparseSite, address: Address) -> Tensor:
    if address.atoms is None:
        return torch.ones(site.atoms, dtype=torch.bool)
    ids = site.atom_ids.cpu()
    mask = torch.zeros(site.atoms, dtype=torch.bool)
    for start, end in address.atoms:
        here = (ids >= start) & (ids <= end)
        if not bool(here.any()):
            label = site_label(adapter, site)
            what = f"atom {start}" if start == end else f"atom from {start} to {end}"
            has = f"its atoms are {ranges(sorted(ids.tolist()))}" if len(ids) else "it has no atoms left"
            raise AddressError(f"address {address.text!r}: {label} has no {what}; {has}.")
        mask |= here
    return mask


def ranges(numbers: list[int], prefix: str = "") -> str:
    """`0-15,40`, with the prefix before each number."""
    parts: list[str] = []
    start = previous = None
    for number in [*numbers, None]:
        if previous is not None and number == previous + 1:
            previous = number
            continue
        if start is not None:
            parts.append(f"{prefix}{start}" if start == previous else f"{prefix}{start}-{prefix}{previous}")
        start = previous = number
    return ",".join(parts)


#: Made once for an adapter, whose sites are fixed when it is made: tables ask for thousands of addresses.
_LABELS: weakref.WeakKeyDictionary[SparseAdapter, dict[str, str]] = weakref.WeakKeyDictionary()


def site_labels(adapter: SparseAdapter) -> Mapping[str, str]:
    """`L17`, `L17.text`, `L17.image.q`, `cat:L17.text` by site key: the stream only where the layer has several sites."""
    if adapter in _LABELS:
        return _LABELS[adapter]
    count = Counter((site.member, site.name.layer) for site in adapter.sites.values())
    labels = _LABELS[adapter] = {}
    for key, site in adapter.sites.items():
        label = f"L{site.name.layer}"
        if count[site.member, site.name.layer] > 1:
            label += f".{site.name.stream or UNNAMED}"
        labels[key] = label if site.member is None else f"{site.member}:{label}"
    return labels


def site_label(adapter: SparseAdapter, site: SparseSite) -> str:
    """One of `site_labels`."""
    return site_labels(adapter)[site.key]


def format_address(adapter: SparseAdapter, key: str, position: int) -> str:
    """The address of the atom at row `position` of a site."""
    site = adapter.sites[key]
    return f"{site_label(adapter, site)}[{int(site.atom_ids[position])}]"


def atom_addresses(adapter: SparseAdapter, atoms: Iterable[tuple[str, int]]) -> list[str]:
    """The addresses of many atoms, given by site key and row."""
    labels = site_labels(adapter)
    return [f"{labels[key]}[{int(adapter.sites[key].atom_ids[row])}]" for key, row in atoms]


def format_masks(adapter: SparseAdapter, masks: dict[str, Tensor]) -> str:
    """The shortest addresses of the atoms where the masks (m) are true; `resolve` is the inverse. Empty: no atom."""
    parts = []
    labels = site_labels(adapter)
    for key, site in adapter.sites.items():
        mask = masks[key].cpu() if key in masks else torch.zeros(site.atoms, dtype=torch.bool)
        if site.atoms and bool(mask.all()):
            parts.append(labels[key])
        elif bool(mask.any()):
            ids = sorted(site.atom_ids.cpu()[mask].tolist())
            parts.append(f"{labels[key]}[{ranges(ids)}]")
    return ",".join(parts)
