"""From a site's name to its place in a loaded model: the module, and the slice of its output where the model has fused several.

Knows module trees, and how diffusers fuses q, k and v; knows no adapter.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from .errors import SiteError
from .site import Place, SiteName
from .tokens import is_convolution

#: The Linear that diffusers' `fuse_qkv_projections` makes → the ones that it replaces, in their order.
FUSED = {
    "to_qkv": ("to_q", "to_k", "to_v"),
    "to_kv": ("to_k", "to_v"),
    "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
    "to_added_kv": ("add_k_proj", "add_v_proj"),
}


def find_places(model: Any, names: Mapping[str, SiteName], component: str, host_component: str | None = None) -> dict[str, Place]:
    """The place of each name, under the same keys. `model` may hold the component (a pipeline) or be it.

    A model that has its modules under other names says so itself: `places` by `SiteName.place`. Raises SiteError with near names.
    """
    own = getattr(model, "places", None)
    found: dict[str, Place] = {}
    missing: list[str] = []
    for key, name in names.items():
        inner = name.path[len(component) + 1 :] if component and name.path.startswith(component + ".") else name.path
        candidates = [name.path, inner] if host_component is None else [f"{host_component}.{inner}", name.path, inner]
        place = own.get(name.place) if isinstance(own, Mapping) else None
        if place is None and isinstance(own, Mapping) and name.path in own:
            place = Place(own[name.path].module, name.rows)
        place = place or next((p for p in (_place(model, candidate, name.rows) for candidate in candidates) if p is not None), None)
        if place is None:
            missing.append(name.path)
        else:
            found[key] = place
    if missing:
        roots = [model, getattr(model, host_component or component or "-", None)]
        near = [name for root in roots if isinstance(root, nn.Module) for name, _ in root.named_modules() if name]
        raise SiteError(missing_text(missing, len(names), near))
    return found


def places_of(model: Any, names: Iterable[SiteName], component: str) -> dict[str, Place]:
    """The place of each name by `SiteName.place`; see `find_places`."""
    return find_places(model, {name.place: name for name in names}, component)


def place_of(target: Place | nn.Module, name: SiteName) -> Place:
    """What a host answered for `name`: its place, or the module that has the name."""
    return target if isinstance(target, Place) else Place(target, name.rows)


def missing_text(missing: list[str], total: int, names: list[str]) -> str:
    """The sentence for sites that are not in the model, with those of its `names` that are near."""
    path = missing[0]
    tail = path.rsplit(".", 1)[-1]
    # Comparing with thousands of names takes seconds; those with the same ending are the likely ones.
    same_ending = [name for name in names if name.rsplit(".", 1)[-1] == tail] or names
    near = difflib.get_close_matches(path, same_ending[:2000], n=3, cutoff=0.4)
    hint = f"near names are {', '.join(near)}" if near else "no name in the model is near"
    return (
        f"{len(missing)} of {total} sites are not in the model, the first is {path} ({hint}); "
        "use the base model family that the adapter was made for."
    )


def widths(place: Place) -> tuple[int, int] | None:
    """(d_in, d_out) as far as the place tells; packed weights of quantised Linears have other shapes, so names go first.

    A convolution takes whole patches: d_in is channels · height · width of its kernel.
    """
    module, rows = place
    weight = getattr(module, "weight", None)
    d_in, d_out = getattr(module, "in_features", None), getattr(module, "out_features", None)
    if not (isinstance(d_in, int) and isinstance(d_out, int)):
        if not isinstance(weight, Tensor) or not weight.is_floating_point() or not (weight.ndim == 2 or is_convolution(module)):
            return None
        d_in, d_out = weight[0].numel(), weight.shape[0]
    if rows is None:
        return d_in, d_out
    return (d_in, rows[1] - rows[0]) if 0 <= rows[0] < rows[1] <= d_out else (d_in, 0)


def may_be_fused(attention: Any) -> bool:
    """Whether a module says of itself if its projections are fused. A module that lacks an attribute takes long to say so, and many are
    asked: so its own fields and its class are looked at."""
    return "fused_projections" in getattr(attention, "__dict__", {}) or hasattr(type(attention), "fused_projections")


def are_fused(attention: Any) -> bool:
    """Whether diffusers' attention computes q, k and v by its fused Linear. Some classes leave that, and their mark, behind when they
    are taken apart again; then the kind of processor tells."""
    if not may_be_fused(attention) or attention.fused_projections is not True:
        return False
    return hasattr(attention, "unfuse_projections") or "Fused" in type(getattr(attention, "processor", None)).__name__


def _place(root: Any, path: str, rows: tuple[int, int] | None) -> Place | None:
    *parents, last = path.split(".")
    for part in parents:
        root = getattr(root, part, None)
        if root is None:
            return None
    if are_fused(root):
        for fused, parts in FUSED.items():
            if last in parts and isinstance(getattr(root, fused, None), nn.Module):
                return _slice(root, fused, parts, parts.index(last))
    module = getattr(root, last, None)
    # PEFT puts a LoRA around a Linear and takes it away again: what it is around stays.
    while isinstance(inner := getattr(module, "base_layer", None), nn.Module):
        module = inner
    return Place(module, rows) if isinstance(module, nn.Module) else None


def _slice(attention: Any, fused: str, parts: tuple[str, ...], index: int) -> Place:
    sizes = [getattr(attention, part).out_features for part in parts]
    return Place(getattr(attention, fused), (sum(sizes[:index]), sum(sizes[: index + 1])))
