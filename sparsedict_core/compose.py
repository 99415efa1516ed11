"""Several adapters in one: their sites side by side, each under its member's name, with its strength.

Applying the result is applying the members one after the other; their atoms are added, none is changed.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from .adapter import Member, SparseAdapter
from .addresses import MEMBER_NAME
from .bounds import LONGEST_PATH, checked_strength
from .errors import CompositionError
from .fingerprint import differ
from .shown_text import shortened
from .site import SparseSite

#: What a dictionary notes of the base's modules, by path, for the LoRA that it may become.
_BY_PATH = ("convolutions", "fused")


def compose(parts: Sequence[tuple[str, SparseAdapter, float]]) -> SparseAdapter:
    """One adapter from (name, adapter, strength). Members of a part that is composed itself become `name.member`.

    Raises CompositionError for a bad or double name, a strength that is not finite, another base family, another component or other widths.
    Warns where the bases are of one family but not the same model.
    """
    if not parts:
        raise CompositionError("there is nothing to compose; give at least one adapter with its name.")
    first_name, first, _ = parts[0]
    sites: list[SparseSite] = []
    members: list[Member] = []
    widths: dict[str, tuple[int, int, str]] = {}
    for name, adapter, strength in parts:
        if MEMBER_NAME.fullmatch(name) is None:
            raise CompositionError(f"{name!r} cannot name a member; use letters, digits, _ and -, beginning with a letter.")
        _check_base(first_name, first, name, adapter)
        inner = adapter.members or (Member("", 1.0, adapter.config),)
        for member in inner:
            full = f"{name}.{member.name}" if member.name else name
            if len(full) > LONGEST_PATH:
                raise CompositionError(f"{shortened(full, 40)} is too long a name for a member, which has {LONGEST_PATH} characters at most.")
            if any(full == other.name for other in members):
                raise CompositionError(f"two adapters are named {full!r}; give each a name of its own.")
            together = checked_strength(float(strength) * member.strength, f"the strength of {full!r}", CompositionError)
            members.append(Member(full, together, member.config))
        for site in adapter.sites.values():
            known = widths.setdefault(site.name.place, (site.d_in, site.d_out, name))
            if known[:2] != (site.d_in, site.d_out):
                raise CompositionError(
                    f"{site.name.place} has widths {site.d_in} and {site.d_out} in {name!r}, {known[0]} and {known[1]} in "
                    f"{known[2]!r}; only adapters of one base model can be composed."
                )
            sites.append(site.clone(member=name if site.member is None else f"{name}.{site.member}"))
    composed = SparseAdapter(sites, first.config, first.component, _metadata(parts), members)
    for name, adapter, strength in parts:
        if adapter.aside and strength != 1:
            warnings.warn(f"what {name!r} holds for text encoders and norms acts at the strength of the whole, not at {strength:g}.", stacklevel=2)
        if adapter.aside and (composed.aside.keys() & adapter.aside.keys()):
            warnings.warn(f"what {name!r} holds for the text encoders is left out, as another member has the same; load its LoRA for them.", stacklevel=2)
        else:
            composed.aside |= adapter.aside
    return composed


def _check_base(first_name: str, first: SparseAdapter, name: str, adapter: SparseAdapter) -> None:
    for what, mine, other in (
        ("base family", adapter.metadata.get("base_family"), first.metadata.get("base_family")),
        ("component", adapter.component, first.component),
    ):
        if mine and other and mine != other:
            raise CompositionError(
                f"{name!r} has the {what} {mine}, {first_name!r} has {other}; only adapters of one base model can be composed."
            )
    if differ(adapter.metadata.get("base_fingerprint"), first.metadata.get("base_fingerprint")):
        warnings.warn(f"{name!r} and {first_name!r} were trained on different models of the same family.", stacklevel=3)


def _metadata(parts: Sequence[tuple[str, SparseAdapter, float]]) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for key in ("base_family", "base_fingerprint"):
        values = [adapter.metadata[key] for _, adapter, _ in parts if adapter.metadata.get(key)]
        if values:
            metadata[key] = values[0]
    for key in _BY_PATH:
        together = {path: value for _, adapter, _ in parts if isinstance(noted := adapter.metadata.get(key), dict) for path, value in noted.items()}
        if together:
            metadata[key] = together
    words: list[str] = []
    for _, adapter, _ in parts:
        words += adapter.trigger_words
    if words:
        metadata["trigger_words"] = list(dict.fromkeys(words))
    metadata["title"] = " + ".join(str(adapter.metadata.get("title", name)) for name, adapter, _ in parts)
    metadata["lineage"] = [
        {"operation": "compose", "members": [{"name": n, "lineage": a.lineage} for n, a, _ in parts]}
    ]
    return metadata
