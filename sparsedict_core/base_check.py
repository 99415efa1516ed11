"""Does an adapter fit this base model? Said before anything is hooked or generated."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .errors import SiteError
from .fingerprint import differ
from .places import find_places, widths
from .site import Place

if TYPE_CHECKING:
    from .adapter import SparseAdapter


def names_of(adapter: SparseAdapter) -> str:
    """For messages: the program whose own names the adapter's sites have, where they are not those that all hosts share."""
    names = adapter.metadata.get("site_names")
    return f" under the names of {names}" if names else ""


def check_base(adapter: SparseAdapter, family: str | None = None, fingerprint: str | None = None, model: Any = None) -> None:
    """Raises SiteError if the family or a width differs, or a site is missing; warns if it is another model of the family."""
    made_for = adapter.metadata.get("base_family")
    if family and made_for and family != made_for:
        raise SiteError(f"the adapter was made for {made_for}{names_of(adapter)}, this base model is {family}; use it with a {made_for} model.", about_base=True)
    if model is not None:
        names = {key: site.name for key, site in adapter.sites.items()}
        check_widths(adapter, find_places(model, names, adapter.component))
    if differ(fingerprint, adapter.metadata.get("base_fingerprint")):
        warnings.warn(
            "the adapter was trained on another model of this family; it works, but the concept may come out weaker.",
            stacklevel=2,
        )


def check_widths(
    adapter: SparseAdapter, places: Mapping[str, Place], model: str = "this model", advice: str = "use it with the base model that it was trained on"
) -> None:
    """Raises SiteError if a place (by site key) has other widths than its site; modules that tell none pass. `model` and `advice` are for
    the message."""
    for key, place in places.items():
        site, found = adapter.sites[key], widths(place)
        if found is not None and found != (site.d_in, site.d_out):
            raise SiteError(
                f"{site.name.place} maps {found[0]} channels to {found[1]} in {model}, the adapter was made for "
                f"{site.d_in} to {site.d_out}; {advice}."
            )
