"""Which modules of a model are sites: by default the Linears that close an attention, on demand any Linear.

A family that is written down (`families/`) has the names that all hosts share. Any other model is seen at work (`data_flow`) and has
its sites under its own paths, for the program that it was trained in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from .data_flow import Output, is_linear, outputs_in_a_run
from .errors import SiteError
from .families import FAMILIES, known_families
from .site import SiteName
from .streams import choose, name_outputs, name_sites
from .tokens import is_convolution

#: Under which names pipelines hold their denoiser.
COMPONENTS = ("transformer", "unet")


@dataclass(frozen=True)
class Discovery:
    """The family ("sdxl"), the component that holds the sites ("unet") and the sites in the order of execution.

    `own_names`: the program whose names the paths are, where the family is not written down; "" where all hosts share them.
    """

    family: str
    component: str
    sites: list[SiteName]
    own_names: str = ""


def denoiser_of(model: Any) -> nn.Module:
    """A pipeline's denoiser, or the model itself, as it was before torch.compile. Raises SiteError for what has none."""
    if not isinstance(model, nn.Module):
        inner = next((found for name in COMPONENTS if isinstance(found := getattr(model, name, None), nn.Module)), None)
        if inner is None:
            raise SiteError(f"a {type(model).__name__} has neither a transformer nor a unet; give a pipeline, or the denoiser itself.")
        model = inner
    denoiser: nn.Module = getattr(model, "_orig_mod", model)
    return denoiser


def discover_sites(model: Any, wanted: str = "out", run: Callable[[], Any] | None = None) -> Discovery:
    """The sites of a denoiser, or of a pipeline that has one as `transformer` or `unet`.

    `wanted`: "out" for the attention outputs, or kinds of Linears such as "out,q,k,v,ff"; "all" for every Linear. `run()` makes the
    model do a step; it is called for a class that no family knows, once for models of one shape. Raises SiteError for such a class
    without `run`, for a model without any attention output, and for a kind that the model hasn't.
    """
    if not isinstance(model, nn.Module):
        model = denoiser_of(model)
    known_already = getattr(model, "discovery", None)  # a host's model under other names says itself what its sites are
    model = getattr(model, "_orig_mod", model)  # torch.compile
    found = known_already if isinstance(known_already, Discovery) else _written_down(model) or _seen(model, run)
    if wanted == "out":
        return found
    names = name_linears(model, found)
    return Discovery(found.family, found.component, choose(names, found.sites, wanted), found.own_names)


def name_linears(model: nn.Module, found: Discovery, paths: Sequence[str] | None = None) -> list[SiteName]:
    """A name for every Linear and convolution of `model`, or for those at `paths` (with the component), with `found`'s as they are."""
    if paths is None:
        places = getattr(model, "places", None)  # a host's model under other names
        paths = list(places) if places else [_join(found.component, path) for path, module in model.named_modules() if _can_be_site(module)]
    return name_sites(found.sites, paths, found.component)


def _join(component: str, path: str) -> str:
    return f"{component}.{path}" if component else path


def _can_be_site(module: nn.Module) -> bool:
    return is_linear(module) or is_convolution(module)


def _written_down(model: nn.Module) -> Discovery | None:
    name = type(model).__name__
    for family in FAMILIES:
        if name in family.classes:
            sites = [site._replace(path=f"{family.component}.{site.path}") for site in family.sites(model)]
            if not sites:
                raise SiteError(f"this {name} has no attention outputs; it cannot carry an adapter.")
            return Discovery(family.name(model), family.component, sites)
    return None


# -- families that nobody wrote down ------------------------------------------------------------------------------

#: What was seen, by the shape of the model.
_SEEN: dict[int, list[Output]] = {}


def _seen(model: nn.Module, run: Callable[[], Any] | None) -> Discovery:
    name, shape = type(model).__name__, _shape(model)
    if shape not in _SEEN:
        if run is None:
            raise SiteError(
                f"no sites are known for a {name} before it has made a step; train on it, give site names yourself, or use one of {known_families()}."
            )
        _SEEN[shape] = outputs_in_a_run(model, run)
    component = "unet" if "UNet" in name else "transformer"
    sites = name_outputs(_SEEN[shape], component)
    if not sites:
        raise SiteError(f"no Linear that closes an attention was seen in a step of this {name}; give site names yourself, or use one of {known_families()}.")
    return Discovery(name, component, sites, own_names=type(model).__module__.split(".")[0])


def _shape(model: nn.Module) -> int:
    return hash(
        (type(model), *((path, type(module).__name__, getattr(module, "in_features", 0), getattr(module, "out_features", 0)) for path, module in model.named_modules()))
    )
