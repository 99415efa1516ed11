"""Which modules of a model are sites: by default the Linears that close an attention, on demand any Linear.

A family that is written down (`families/`) has the names that all hosts share. Any other model is seen at work (`data_flow`) and has
its sites under its own paths, for the program that it was trained in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import FunctionType
from typing import Any

from torch import nn
from torch.utils._pytree import tree_leaves

from .data_flow import Seen, follow_a_run, is_linear
from .errors import SiteError
from .families import FAMILIES, known_families
from .places import FUSED
from .site import SiteName
from .streams import block_of_output, choose, name_outputs, name_sites
from .tokens import is_convolution

#: Under which names pipelines hold their denoiser.
COMPONENTS = ("transformer", "unet")


@dataclass(frozen=True)
class Discovery:
    """The family ("sdxl"), the component that holds the sites ("unet") and the sites in the order of execution.

    `own_names`: the program whose names the paths are, where the family is not written down; "" where all hosts share them.
    `inputs`: path of a Linear that gives an attention its q, k or v → which slice of its output channels is which, where a step was seen.
    """

    family: str
    component: str
    sites: list[SiteName]
    own_names: str = ""
    inputs: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)


def called_denoiser(model: Any) -> nn.Module:
    """A pipeline's denoiser as the pipeline calls it, or the model itself. Raises SiteError for what has none."""
    if isinstance(model, nn.Module):
        return model
    inner = next((found for name in COMPONENTS if isinstance(found := getattr(model, name, None), nn.Module)), None)
    if inner is None:
        raise SiteError(f"a {type(model).__name__} has neither a transformer nor a unet; give a pipeline, or the denoiser itself.")
    return inner


def denoiser_of(model: Any) -> nn.Module:
    """The same as it was before torch.compile."""
    called = called_denoiser(model)
    denoiser: nn.Module = getattr(called, "_orig_mod", called)
    return denoiser


def discover_sites(model: Any, wanted: str = "out", run: Callable[[], Any] | None = None) -> Discovery:
    """The sites of a denoiser, or of a pipeline that has one as `transformer` or `unet`.

    `wanted`: "out" for the attention outputs, or kinds of Linears such as "out,q,k,v,ff"; "all" for every Linear. `run()` makes the
    model do a step, once for models of one shape: it shows the sites of a class that no family knows, and which slices of a fused
    Linear are q, k and v. Raises SiteError for such a class without `run`, for a model without any attention output, and for a kind
    that the model hasn't.
    """
    if not isinstance(model, nn.Module):
        model = denoiser_of(model)
    known_already = getattr(model, "discovery", None)  # a host's model under other names says itself what its sites are
    model = getattr(model, "_orig_mod", model)  # torch.compile
    if isinstance(known_already, Discovery):
        found = known_already
    else:
        written = _written_down(model)
        if written is not None and wanted == "out":
            return written
        found = _discovered(model, written, _seen(model, run))
    if wanted == "out":
        return found
    return replace(found, sites=choose(name_linears(model, found), found.sites, wanted))


def name_linears(model: nn.Module, found: Discovery, paths: Sequence[str] | None = None) -> list[SiteName]:
    """A name for every Linear and convolution of `model`, or for those at `paths` (with the component), with `found`'s as they are.

    A Linear that gives several of q, k and v has a name for each slice.
    """
    places = getattr(model, "places", None)  # a host's model under other names
    if paths is None:
        paths = list(places) if places else [_join(found.component, path) for path in _linears(model)]
    modules = {path: places[path].module if places else model.get_submodule(_without(found.component, path)) for path in found.inputs if path in paths}
    return name_sites(found.sites, paths, found.component, {path: (found.inputs[path], module.out_features) for path, module in modules.items()})


def _linears(model: nn.Module) -> list[str]:
    """The paths of all modules that can be sites; not that of a Linear which diffusers made of several that are there still."""
    modules = dict(model.named_modules())

    def fused(path: str) -> bool:
        parent, _, name = path.rpartition(".")
        return name in FUSED and all(hasattr(modules[parent], part) for part in FUSED[name])

    return [path for path, module in modules.items() if (is_linear(module) or is_convolution(module)) and not fused(path)]


def _join(component: str, path: str) -> str:
    return f"{component}.{path}" if component else path


def _without(component: str, path: str) -> str:
    return path.removeprefix(f"{component}.") if component else path


def _written_down(model: nn.Module) -> Discovery | None:
    name = type(model).__name__
    for family in FAMILIES:
        if name in family.classes:
            sites = [site._replace(path=f"{family.component}.{site.path}") for site in family.sites(model)]
            if not sites:
                raise SiteError(f"this {name} has no attention outputs; it cannot carry an adapter.")
            return Discovery(family.name(model), family.component, sites)
    return None


# -- what a step shows --------------------------------------------------------------------------------------------

#: By the shape of the model.
_SEEN: dict[int, Seen] = {}


def _seen(model: nn.Module, run: Callable[[], Any] | None) -> Seen | None:
    shape = _shape(model)
    if shape not in _SEEN and run is not None:
        seen = follow_a_run(model, run)
        check_blocks(model, seen)
        _SEEN[shape] = seen
    return _SEEN.get(shape)


def _discovered(model: nn.Module, written: Discovery | None, seen: Seen | None) -> Discovery:
    name = type(model).__name__
    found = written
    if found is None:
        if seen is None:
            raise SiteError(f"no sites are known for a {name} before it has made a step; train on it, give site names yourself, or use one of {known_families()}.")
        component = "unet" if "UNet" in name else "transformer"
        sites = name_outputs(seen.outputs, component)
        if not sites:
            raise SiteError(f"no Linear that closes an attention was seen in a step of this {name}; give site names yourself, or use one of {known_families()}.")
        found = Discovery(name, component, sites, own_names=type(model).__module__.split(".")[0])
    return replace(found, inputs={_join(found.component, path): slices for path, slices in seen.inputs.items()} if seen else {})


def _shape(module: nn.Module) -> int:
    """What decides which way a step goes: the modules, the plain values and functions that they hold, and the kinds of other objects."""
    return hash(tuple((path, type(part), *_settings(part)) for path, part in module.named_modules()))


def _settings(module: nn.Module) -> list[tuple[str, str]]:
    passing = ("training", "gradient_checkpointing", "forward")
    config = getattr(module, "config", None)
    held = {**vars(module), **(config if isinstance(config, Mapping) else {})}
    return sorted((name, _text(value)) for name, value in held.items() if name[0] != "_" and name not in passing)


def _text(value: Any) -> str:
    if isinstance(value, (FunctionType, type)) or all(leaf is None or isinstance(leaf, (bool, int, float, str)) for leaf in tree_leaves(value)):
        return repr(value)
    return type(value).__qualname__


def check_blocks(model: nn.Module, seen: Seen) -> None:
    """Raises SiteError where of blocks that are built alike one showed other attention outputs: then something was not seen."""
    shown: dict[str, list[str]] = {}
    for output in seen.outputs:
        block = block_of_output(output.path)
        shown.setdefault(block, []).append(output.path[len(block) + 1 :])
    first: dict[int, str] = {}
    for path, module in model.named_modules():
        if path.rpartition(".")[2].isdigit():
            twin = first.setdefault(_shape(module), path)
            if shown.get(twin) != shown.get(path):
                raise SiteError(
                    f"{twin} and {path} of this {type(model).__name__} are built alike, but a step showed attention outputs of one that it did not show of the "
                    f"other ({', '.join(shown.get(twin) or shown[path])}); give site names yourself, or use one of {known_families()}."
                )
