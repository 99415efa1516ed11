"""Which modules of the host's loaded model are an adapter's sites, under the names that diffusers has for them.

Modules are found by name, never by class: the host's Linears are many kinds (cast, fp8, GGUF). Nothing here changes the host.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..host_shared.alias_tree import AliasTree, build_tree
from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.base_check import check_widths, names_of
from ..sparsedict_core.data_flow import follow_a_run
from ..sparsedict_core.errors import SiteError
from ..sparsedict_core.fingerprint import fingerprint
from ..sparsedict_core.module_hook import FRESH_FORWARDS
from ..sparsedict_core.places import widths
from ..sparsedict_core.site import Place, SiteName
from ..sparsedict_core.site_discovery import Discovery, check_blocks
from ..sparsedict_core.streams import name_outputs
from .families import family_of, known_models
from .linears import host_linears

#: A file's family → the family that the host loads such a model as.
LOADED_AS = {"demo": "sd3"}
#: The component of sites under the host's own names.
OWN = "diffusion_model"


@dataclass(frozen=True)
class HostSites:
    """The attention outputs of the host's model in the order of execution; `modules` by canonical path ("transformer.….attn.to_out.0").

    `places` has every Linear and convolution too, slices of fused ones where diffusers has several. `own_names`: "ComfyUI" where
    nobody wrote the family down, so that the paths are the host's own; `inputs` are then as in `Discovery`.
    """

    family: str
    component: str
    names: list[SiteName]
    modules: dict[str, nn.Module]
    places: dict[str, Place]
    own_names: str = ""
    inputs: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)


def diffusion_model(patcher: Any) -> nn.Module:
    """The denoiser inside the host's MODEL. Raises SiteError if there is none."""
    model = getattr(getattr(patcher, "model", None), "diffusion_model", None)
    if not isinstance(model, nn.Module):
        raise SiteError(f"a {type(patcher).__name__} holds no diffusion model; connect the MODEL of a checkpoint or diffusion model loader.")
    return getattr(model, "_orig_mod", model)  # torch.compile


#: What was found in a model, with the host's name of each of its modules: a large model has thousands to look through.
_KNOWN: weakref.WeakKeyDictionary[nn.Module, tuple[HostSites, list[tuple[str, nn.Module]]]] = weakref.WeakKeyDictionary()


def host_sites(patcher: Any, run: Callable[[], Any] | None = None) -> HostSites:
    """The sites of the model in `patcher` (a ModelPatcher). `run()` makes the model do a step, if nobody wrote its family down.

    Raises SiteError for such a family without `run`, and for a model without attention.
    """
    model = diffusion_model(patcher)
    _learn_the_hosts_linear()
    found, places = _KNOWN.get(model, (None, []))
    # Other packs exchange modules.
    if found is None or not all(_at(model, name) is module for name, module in places):
        found = _host_sites(patcher, model, run)
        inside = {id(module): name for name, module in model.named_modules()}
        _KNOWN[model] = found, [(inside[id(place.module)], place.module) for place in found.places.values()]
    return dataclasses.replace(found, names=list(found.names), modules=dict(found.modules))


def _learn_the_hosts_linear() -> None:
    """The host's own Linear gives a new tensor at every call, as torch's does, so an adapter may add to it in place."""
    from comfy.ops import disable_weight_init

    FRESH_FORWARDS.add(disable_weight_init.Linear.forward)


def _at(model: nn.Module, name: str) -> nn.Module | None:
    inner: Any = model
    for part in name.split("."):
        inner = inner._modules.get(part) if isinstance(inner, nn.Module) else None
    return inner


def host_config(patcher: Any) -> dict[str, Any]:
    """What the host has found out about the model's shape."""
    return getattr(getattr(patcher.model, "model_config", None), "unet_config", {})


def host_kind(patcher: Any) -> str:
    """The host's own class of the model, by name; a class of another pack counts as the host's that it is made from."""
    kinds = type(patcher.model).__mro__
    return next((kind for kind in kinds if kind.__module__ == "comfy.model_base"), kinds[0]).__name__


def host_family(patcher: Any) -> str:
    """The family's name: the one that all hosts share, or for a model that nobody wrote down the host's own."""
    kind, present = host_kind(patcher), frozenset(name for name, _ in diffusion_model(patcher).named_modules())
    family = family_of(kind, present)
    return kind if family is None else family.name(kind, present, host_config(patcher))


def _host_sites(patcher: Any, model: nn.Module, run: Callable[[], Any] | None) -> HostSites:
    modules = dict(model.named_modules())
    present, kind, config = frozenset(modules), host_kind(patcher), host_config(patcher)
    family = family_of(kind, present)
    if family is None:
        return _own_sites(patcher, model, run)
    paths = {path: modules[name] for path, name in family.names(present, config).items() if name in present}
    names = list(family.layout.sites(build_tree(paths, AliasTree()))) if paths else []
    if not names:
        raise SiteError(f"no attention output was found in the host's {kind} model; it cannot carry an adapter. Known are {known_models()}.")
    name, component = family.name(kind, present, config), family.layout.component
    places = {f"{component}.{path}": Place(modules[host], rows) for path, (host, rows) in host_linears(name, model, config).items()}
    places |= {f"{component}.{name.path}": Place(paths[name.path]) for name in names}
    return HostSites(
        name,
        component,
        [name._replace(path=f"{component}.{name.path}") for name in names],
        {f"{component}.{name.path}": paths[name.path] for name in names},
        places,
    )


def _own_sites(patcher: Any, model: nn.Module, run: Callable[[], Any] | None) -> HostSites:
    """A model that nobody wrote down, under its own names; its attention outputs are seen in a step."""
    kind = host_kind(patcher)
    places = {f"{OWN}.{name}": Place(module) for name, module in model.named_modules() if widths(Place(module)) is not None}
    if run is None:
        raise SiteError(f"no sites are known for the host's {kind} model before it has made a step; train on it here, or use {known_models()}.")
    with attention_in_torch():
        seen = follow_a_run(model, run)
    check_blocks(model, seen)
    names = name_outputs(seen.outputs, OWN)
    if not names:
        raise SiteError(f"no Linear that closes an attention was seen in a step of the host's {kind} model; use {known_models()}.")
    inputs = {f"{OWN}.{path}": slices for path, slices in seen.inputs.items()}
    return HostSites(kind, OWN, names, {name.path: places[name.path].module for name in names}, places, "ComfyUI", inputs)


@contextlib.contextmanager
def attention_in_torch() -> Iterator[None]:
    """The host's attention in torch's own operations: other kernels give what they compute no name to know it by."""
    from comfy.ldm.modules import attention

    before = []
    for name, module in list(sys.modules.items()):
        for function in ("optimized_attention", "optimized_attention_masked"):
            if name.split(".")[0] == "comfy" and hasattr(module, function):
                before.append((module, function, getattr(module, function)))
                setattr(module, function, attention.attention_pytorch)
    try:
        yield
    finally:
        for module, function, old in before:
            setattr(module, function, old)


def modules_for(adapter: SparseAdapter, patcher: Any) -> dict[str, Place]:
    """The host's place of each site key. Raises SiteError if the family, a name or a width does not fit."""
    family, made_for = host_family(patcher), adapter.metadata.get("base_family")
    own = adapter.component == OWN
    sites = None if own else host_sites(patcher)
    if made_for and LOADED_AS.get(made_for, made_for) != family and not (sites and _same_weights(adapter, sites)):
        raise SiteError(f"the adapter was made for {made_for}{names_of(adapter)}, this model is {family}; load a {made_for} model, or another adapter.")
    if sites is None:
        model = diffusion_model(patcher)
        places = {site.name.path: Place(module) for site in adapter.sites.values() if (module := _at(model, site.name.path.removeprefix(f"{OWN}."))) is not None}
    else:
        places = sites.places
    missing = [site.name.path for site in adapter.sites.values() if site.name.path not in places]
    if missing:
        near = difflib.get_close_matches(missing[0], list(sites.modules if sites else places), n=3, cutoff=0.4)
        hint = f"near names are {', '.join(near)}" if near else "no name in the model is near"
        raise SiteError(
            f"{len(missing)} of {len(adapter.sites)} sites are not in this {family} model, the first is {missing[0]} ({hint}); "
            "load the base model that the adapter was made for."
        )
    found = {key: Place(places[site.name.path].module, site.name.rows or places[site.name.path].rows) for key, site in adapter.sites.items()}
    check_widths(adapter, found, f"this {family} model", "load the base model that it was made for")
    return found


def _same_weights(adapter: SparseAdapter, sites: HostSites) -> bool:
    """Whether the adapter was made on these very weights: older files call Chroma and LongCat flux."""
    made_on = adapter.metadata.get("base_fingerprint")
    return bool(made_on) and made_on == fingerprint(alias_tree(sites), sites.names, sites.component)


def alias_tree(sites: HostSites) -> AliasTree:
    """A module tree in which `sites.modules` are found under their canonical paths, and `discover_sites` finds the sites."""
    tree = AliasTree(Discovery(sites.family, sites.component, list(sites.names), sites.own_names, sites.inputs))
    tree.places = sites.places
    build_tree(sites.modules, tree)
    return tree
