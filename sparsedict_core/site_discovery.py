"""Which Linears of a diffusers model are sites: those that close an attention. One small file a family in `families/`.

Knows class names and module paths, never imports diffusers; a model of an unknown class needs its sites given by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from .errors import SiteError
from .families import FAMILIES
from .site import SiteName


@dataclass(frozen=True)
class Discovery:
    """The family ("sdxl"), the component that holds the sites ("unet") and the sites in the order of execution."""

    family: str
    component: str
    sites: list[SiteName]


def discover_sites(model: Any) -> Discovery:
    """The sites of a denoiser, or of a pipeline that has one as `transformer` or `unet`.

    Raises SiteError for a class that no family knows, or a model without any attention output.
    """
    if not isinstance(model, nn.Module):
        inner = getattr(model, "transformer", None) or getattr(model, "unet", None)
        if not isinstance(inner, nn.Module):
            raise SiteError(f"a {type(model).__name__} has neither a transformer nor a unet; give the denoiser itself.")
        model = inner
    known_already = getattr(model, "discovery", None)  # a host's model under other names says itself what its sites are
    if isinstance(known_already, Discovery):
        return known_already
    model = getattr(model, "_orig_mod", model)  # torch.compile
    name = type(model).__name__
    for family in FAMILIES:
        if name in family.classes:
            sites = [site._replace(path=f"{family.component}.{site.path}") for site in family.sites(model)]
            if not sites:
                raise SiteError(f"this {name} has no attention outputs; it cannot carry an adapter.")
            return Discovery(family.name(model), family.component, sites)
    known = ", ".join(cls for family in FAMILIES for cls in family.classes)
    raise SiteError(f"no sites are known for a {name}; give site names yourself, or use one of {known}.")
