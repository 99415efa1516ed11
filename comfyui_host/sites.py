"""Which modules of the host's loaded model are an adapter's sites, under the names that diffusers has for them.

Modules are found by name, never by class: the host's Linears are many kinds (cast, fp8, GGUF). Nothing here changes the host.
"""

from __future__ import annotations

import difflib
import weakref
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..sparsedict_core.adapter import SparseAdapter, check_widths
from ..sparsedict_core.errors import SiteError
from ..sparsedict_core.module_hook import FRESH_FORWARDS
from ..sparsedict_core.site import Place, SiteName
from ..sparsedict_core.site_discovery import Discovery
from .families import HOST_FAMILIES
from .linears import host_linears

#: A file's family → the family that the host loads such a model as.
LOADED_AS = {"demo": "sd3"}


@dataclass(frozen=True)
class HostSites:
    """The sites of the host's model in the order of execution; `modules` by canonical path ("transformer.….attn.to_out.0")."""

    family: str
    component: str
    names: list[SiteName]
    modules: dict[str, nn.Module]


class AliasTree(nn.Module):
    """Plain containers whose leaves are the host's modules; `discovery` is what `discover_sites` answers for it.

    The host's modules know nothing of it. Its parameters are the host's own, so don't move or cast it.
    """

    discovery: Discovery

    def __init__(self, discovery: Discovery | None = None) -> None:
        super().__init__()
        if discovery is not None:
            self.discovery = discovery


def diffusion_model(patcher: Any) -> nn.Module:
    """The denoiser inside the host's MODEL. Raises SiteError if there is none."""
    model = getattr(getattr(patcher, "model", None), "diffusion_model", None)
    if not isinstance(model, nn.Module):
        raise SiteError(f"a {type(patcher).__name__} holds no diffusion model; connect the MODEL of a checkpoint or diffusion model loader.")
    return getattr(model, "_orig_mod", model)  # torch.compile


#: What was found in a model, with the host's name of each of its modules: a large model has thousands to look through.
_KNOWN: weakref.WeakKeyDictionary[nn.Module, tuple[HostSites, list[tuple[str, nn.Module]]]] = weakref.WeakKeyDictionary()


def host_sites(patcher: Any) -> HostSites:
    """The sites of the model in `patcher` (a ModelPatcher). Raises SiteError for a family that is not known."""
    model = diffusion_model(patcher)
    _learn_the_hosts_linear()
    found, places = _KNOWN.get(model, (None, []))
    if found is None or not all(_is_at(model, name, module) for name, module in places):
        found = _host_sites(patcher, model)
        inside = {id(module): name for name, module in model.named_modules()}
        _KNOWN[model] = found, [(inside[id(module)], module) for module in found.modules.values()]
    return HostSites(found.family, found.component, list(found.names), dict(found.modules))


def _learn_the_hosts_linear() -> None:
    """The host's own Linear gives a new tensor at every call, as torch's does, so an adapter may add to it in place."""
    from comfy.ops import disable_weight_init

    FRESH_FORWARDS.add(disable_weight_init.Linear.forward)


def _is_at(model: nn.Module, name: str, module: nn.Module) -> bool:
    """Whether `module` is still what `name` leads to; other packs exchange modules."""
    inner: Any = model
    for part in name.split("."):
        inner = inner._modules.get(part) if isinstance(inner, nn.Module) else None
    return inner is module


def host_config(patcher: Any) -> dict[str, Any]:
    """What the host has found out about the model's shape."""
    return getattr(getattr(patcher.model, "model_config", None), "unet_config", {})


def _host_sites(patcher: Any, model: nn.Module) -> HostSites:
    modules = dict(model.named_modules())
    present = frozenset(modules)
    config = host_config(patcher)
    for family in HOST_FAMILIES:
        if family.mark not in present:
            continue
        paths = {path: modules[name] for path, name in family.names(present, config).items() if name in present}
        names = list(family.layout.sites(_tree(paths, AliasTree()))) if paths else []
        if not names:
            break
        component = family.layout.component
        return HostSites(
            family.name(present, config),
            component,
            [name._replace(path=f"{component}.{name.path}") for name in names],
            {f"{component}.{name.path}": paths[name.path] for name in names},
        )
    raise SiteError(
        f"no sites are known for the host's {type(patcher.model).__name__} model; use SD1.5, SD2, SDXL, SD3, Flux, Flux 2, Wan, "
        "HunyuanVideo, HunyuanDiT, Qwen-Image or Lumina2."
    )


def modules_for(adapter: SparseAdapter, patcher: Any) -> dict[str, Place]:
    """The host's place of each site key. Raises SiteError if the family, a name or a width does not fit."""
    sites = host_sites(patcher)
    made_for = adapter.metadata.get("base_family")
    if made_for and LOADED_AS.get(made_for, made_for) != sites.family:
        raise SiteError(f"the adapter was made for {made_for}, this model is {sites.family}; load a {made_for} model, or another adapter.")
    places = {path: Place(module) for path, module in sites.modules.items()}
    if any(site.name.path not in places for site in adapter.sites.values()):
        model = diffusion_model(patcher)
        linears = host_linears(sites.family, model, host_config(patcher))
        places |= {f"{sites.component}.{path}": Place(model.get_submodule(name), rows) for path, (name, rows) in linears.items()}
    missing = [site.name.path for site in adapter.sites.values() if site.name.path not in places]
    if missing:
        near = difflib.get_close_matches(missing[0], list(places), n=3, cutoff=0.4)
        hint = f"near names are {', '.join(near)}" if near else "no name in the model is near"
        raise SiteError(
            f"{len(missing)} of {len(adapter.sites)} sites are not in this {sites.family} model, the first is {missing[0]} ({hint}); "
            "load the base model that the adapter was made for."
        )
    found = {key: Place(places[site.name.path].module, site.name.rows or places[site.name.path].rows) for key, site in adapter.sites.items()}
    check_widths(adapter, found, f"this {sites.family} model", "load the base model that it was made for")
    return found


def alias_tree(sites: HostSites) -> AliasTree:
    """A module tree in which `sites.modules` are found under their canonical paths, and `discover_sites` finds the sites."""
    tree = AliasTree(Discovery(sites.family, sites.component, list(sites.names)))
    _tree(sites.modules, tree)
    return tree


def _tree(modules: dict[str, nn.Module], root: nn.Module) -> nn.Module:
    """`modules` at their dotted paths below `root`; numbered children become a ModuleList, gaps in it empty modules."""
    nested: dict[str, Any] = {}
    for path, module in modules.items():
        inner = nested
        *parents, last = path.split(".")
        for part in parents:
            inner = inner.setdefault(part, {})
        inner[last] = module
    return _build(nested, root)


def _build(nested: dict[str, Any], root: nn.Module | None = None) -> nn.Module:
    built = {name: _build(child) if isinstance(child, dict) else child for name, child in nested.items()}
    if root is None and built and all(name.isdigit() for name in built):
        count = max(int(name) for name in built) + 1
        return nn.ModuleList([built.get(str(number), nn.Module()) for number in range(count)])
    root = nn.Module() if root is None else root
    for name, module in built.items():
        root.add_module(name, module)
    return root
