"""Every Linear and convolution of the host's model under diffusers' name for it: what a LoRA can be on, beyond the attention outputs.

The names come from the host's own key maps. Where it has none its own names are kept, so such a dictionary works in the host alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..sparsedict_core.places import widths
from ..sparsedict_core.site import Place
from .families.base import renamed

_WAN = {
    r"blocks\.(\d+)\.self_attn\.([qkv])": r"blocks.\1.attn1.to_\2",
    r"blocks\.(\d+)\.cross_attn\.([qkv])": r"blocks.\1.attn2.to_\2",
    r"blocks\.(\d+)\.self_attn\.o": r"blocks.\1.attn1.to_out.0",
    r"blocks\.(\d+)\.cross_attn\.o": r"blocks.\1.attn2.to_out.0",
    r"blocks\.(\d+)\.cross_attn\.([kv])_img": r"blocks.\1.attn2.add_\2_proj",
    r"blocks\.(\d+)\.ffn\.0": r"blocks.\1.ffn.net.0.proj",
    r"blocks\.(\d+)\.ffn\.2": r"blocks.\1.ffn.net.2",
}


def host_linears(family: str, model: nn.Module, config: Mapping[str, Any]) -> dict[str, tuple[str, tuple[int, int] | None]]:
    """Path (without the component) → the host's module and, of a fused one, the rows (start, stop) that are meant."""
    modules = {name: module for name, module in model.named_modules() if widths(Place(module)) is not None}
    found: dict[str, tuple[str, tuple[int, int] | None]] = {}
    taken: dict[str, set[tuple[int, int] | None]] = {}
    for path, target in _key_map(family, config, modules).items():
        # (key, None, function): rows in another order, which no slice is.
        name, rows = (target, None) if isinstance(target, str) else (target[0], target[1]) if len(target) == 2 else ("", None)
        if path.endswith(".weight") and name.removesuffix(".weight") in modules and (rows is None or rows[0] == 0):
            module, part = name.removesuffix(".weight"), rows and (rows[1], rows[1] + rows[2])
            others = taken.setdefault(module, set())
            # Newer hosts know a module under several names; under the first alone it is a site, else a LoRA would count twice.
            if part in others or None in others or (part is None and others):
                continue
            others.add(part)
            found[path.removesuffix(".weight")] = module, part
    return {**found, **{name: (name, None) for name in modules if name not in taken}}


def _key_map(family: str, config: Mapping[str, Any], modules: Mapping[str, nn.Module]) -> dict[str, Any]:
    import comfy.utils

    maps: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        **dict.fromkeys(("sd15", "sd2", "sdxl"), comfy.utils.unet_to_diffusers),
        "sd3": comfy.utils.mmdit_to_diffusers,
        **dict.fromkeys(("flux", "chroma"), comfy.utils.flux_to_diffusers),
    }
    if hasattr(comfy.utils, "z_image_to_diffusers"):
        maps["z_image"] = comfy.utils.z_image_to_diffusers
    if family in maps:
        return maps[family](dict(config))
    return {f"{path}.weight": f"{name}.weight" for path, name in renamed(modules, _WAN if family == "wan" else {}).items()}
