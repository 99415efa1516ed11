"""Where a web UI's model keeps the modules that files call by diffusers' names. Knows module trees, no host.

The web UIs load models under the names of their first releases. Modules are found by name, never by class: Forge's Linear is
no `nn.Linear`, and a filter by class would find nothing without a word. A family that nobody wrote down has its own names in
a file, those of ComfyUI, which the Forges share.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import nn

from ..host_shared.alias_tree import AliasTree, build_tree
from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.base_check import check_widths
from ..sparsedict_core.errors import SiteError
from ..sparsedict_core.families import unet
from ..sparsedict_core.places import missing_text
from ..sparsedict_core.site import Place
from ..sparsedict_core.site_discovery import Discovery

Rows = tuple[int, int] | None
Renamer = Callable[[str], tuple[str, Rows] | None]
#: A file's family → the family that a host loads such a model as.
LOADED_AS = {"demo": "sd3"}
#: The component of sites under the model's own names.
OWN = "diffusion_model"


class Layout(NamedTuple):
    """The model's family ("sdxl"), the component in its sites' names ("unet"), and a site's path → the module's own name."""

    family: str
    component: str
    rename: Renamer


def layout_of(model: nn.Module) -> Layout:
    """What kind of model this is. Raises SiteError for one that the pack has no names for."""
    modules = dict(model.named_modules())
    if "input_blocks" in modules:
        return Layout(_unet_family(modules), "unet", _unet(modules))
    if "joint_blocks" in modules:
        return Layout("sd3", "transformer", _sd3(modules))
    if "double_blocks" in modules and "img_in" in modules:
        family = "chroma" if "distilled_guidance_layer" in modules else "flux2" if "double_stream_modulation_img" in modules else "flux"
        return Layout(family, "transformer", _flux(modules))
    if "transformer_blocks.0.attn.to_add_out" in modules:
        return Layout("qwen_image", "transformer", lambda path: (path, None))
    if "noise_refiner.0.attention.out" in modules:
        z_image = hasattr(model, "x_pad_token")
        return Layout("z_image" if z_image else "lumina2", "transformer", _next_dit(modules, "attention" if z_image else "attn"))
    raise SiteError(f"no sites are known for this web UI's {type(model).__name__}; use SD1.5, SD2, SDXL, SD3, Flux, Chroma, Qwen-Image, Lumina 2 or Z-Image, or a file that was trained on this model in ComfyUI.")


def places_for(adapter: SparseAdapter, model: nn.Module) -> dict[str, Place]:
    """The place of each site key. Raises SiteError if the family, a name or a width does not fit."""
    layout = Layout(type(model).__name__, OWN, lambda path: (path, None)) if adapter.component == OWN else layout_of(model)
    made_for = adapter.metadata.get("base_family")
    if made_for and adapter.component != OWN and LOADED_AS.get(made_for, made_for) != layout.family:
        raise SiteError(f"it was made for {made_for} and this model is {layout.family}; choose a {made_for} checkpoint, or another adapter.")
    modules = dict(model.named_modules())
    found: dict[str, Place] = {}
    missing = []
    for key, site in adapter.sites.items():
        target = layout.rename(site.name.path.removeprefix(f"{layout.component}."))
        if target is None or target[0] not in modules:
            missing.append(site.name.path)
        else:
            found[key] = Place(modules[target[0]], site.name.rows or target[1])
    if missing:
        raise SiteError(missing_text(missing, len(adapter.sites), list(modules)))
    check_widths(adapter, found, f"this {layout.family} model", "use the checkpoint that it was made for")
    return found


def unet_tree(model: nn.Module) -> AliasTree:
    """The attention outputs of an SD1.5, SD2 or SDXL model under diffusers' names, to train on; `halvings` is how often it halves a side.

    Raises SiteError for another model.
    """
    layout = layout_of(model)
    if layout.component != "unet":
        raise SiteError(f"a {layout.family} model cannot be trained in a web UI yet; load an SD1.5, SD2 or SDXL checkpoint, or train in ComfyUI or by the command line.")
    modules = dict(model.named_modules())
    blocks = _unet_blocks(modules)
    found = {}
    for block, own in blocks.items():
        for path in (name.removeprefix(f"{own}.") for name in modules if name.startswith(f"{own}.")):
            if re.fullmatch(r"transformer_blocks\.\d+\.attn[12]\.to_out\.0", path):
                found[f"{block}.{path}"] = modules[f"{own}.{path}"]
    sites = [site._replace(path=f"unet.{site.path}") for site in unet.FAMILY.sites(build_tree(found, AliasTree()))]
    tree = AliasTree(Discovery(layout.family, "unet", sites))
    tree.places = {site.path: Place(found[site.path.removeprefix("unet.")]) for site in sites}
    tree.halvings = sum(".downsamplers." in block for block in blocks)
    build_tree({path: place.module for path, place in tree.places.items()}, tree)
    return tree


# -- SD1.5, SD2 and SDXL -------------------------------------------------------------------------------------------

_RESNET = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}


def _unet_family(modules: Mapping[str, nn.Module]) -> str:
    if "label_emb" in modules:
        return "sdxl"
    key = next((m for name, m in modules.items() if name.endswith("attn2.to_k")), None)
    return "sd2" if getattr(key, "in_features", 768) == 1024 else "sd15"


def _unet(modules: Mapping[str, nn.Module]) -> Renamer:
    blocks = _unet_blocks(modules)

    def rename(path: str) -> tuple[str, Rows] | None:
        match = re.match(r"((?:down_blocks|up_blocks)\.\d+|mid_block)\.(attentions|resnets|downsamplers|upsamplers)\.(\d+)\.(.+)", path)
        if match is None:
            return None
        block, kind, number, rest = match.groups()
        place = blocks.get(f"{block}.{kind}.{number}")
        if place is None:
            return None
        if kind == "resnets":
            rest = _RESNET.get(rest, rest)
        elif kind == "downsamplers":
            rest = rest.replace("conv", "op", 1)
        return f"{place}.{rest}", None

    return rename


def _unet_blocks(modules: Mapping[str, nn.Module]) -> dict[str, str]:
    """Diffusers' block, such as "down_blocks.1.attentions.0", → this model's, such as "input_blocks.4.1"."""
    found = {"mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1", "mid_block.resnets.1": "middle_block.2"}
    for side, first, ours, sampler in (("input_blocks", 1, "down_blocks", "downsamplers"), ("output_blocks", 0, "up_blocks", "upsamplers")):
        level = number = 0
        index = first
        while f"{side}.{index}" in modules:
            children = [name for name, _ in modules[f"{side}.{index}"].named_children()]
            ends = False
            for child in children:
                at = f"{side}.{index}.{child}"
                if f"{at}.op" in modules or f"{at}.conv" in modules:
                    found[f"{ours}.{level}.{sampler}.0"] = at
                    ends = True
                elif f"{at}.transformer_blocks" in modules:
                    found[f"{ours}.{level}.attentions.{number}"] = at
                elif f"{at}.in_layers" in modules:
                    found[f"{ours}.{level}.resnets.{number}"] = at
            # A level ends with its sampler, which stands alone on the way down.
            level, number = (level + 1, 0) if ends else (level, number + 1)
            index += 1
    return found


# -- transformers --------------------------------------------------------------------------------------------------


def _fused(modules: Mapping[str, nn.Module], name: str, part: int, parts: int = 3, width: int | None = None) -> tuple[str, Rows] | None:
    """Part number `part` of a fused Linear, all parts of one width."""
    width = width or getattr(modules.get(name), "out_features", 0) // parts
    return (name, (part * width, (part + 1) * width)) if width else None


def _table(rules: Mapping[str, str | Callable[[re.Match[str]], tuple[str, Rows] | None]]) -> Renamer:
    def rename(path: str) -> tuple[str, Rows] | None:
        for pattern, target in rules.items():
            match = re.fullmatch(pattern, path)
            if match is not None:
                return (match.expand(target), None) if isinstance(target, str) else target(match)
        return None

    return rename


def _sd3(modules: Mapping[str, nn.Module]) -> Renamer:
    block = r"transformer_blocks\.(\d+)\."
    return _table(
        {
            rf"{block}(attn2?)\.to_out\.0": r"joint_blocks.\1.x_block.\2.proj",
            rf"{block}attn\.to_add_out": r"joint_blocks.\1.context_block.attn.proj",
            rf"{block}(attn2?)\.to_([qkv])": lambda m: _fused(modules, f"joint_blocks.{m[1]}.x_block.{m[2]}.qkv", "qkv".index(m[3])),
            rf"{block}attn\.add_([qkv])_proj": lambda m: _fused(modules, f"joint_blocks.{m[1]}.context_block.attn.qkv", "qkv".index(m[2])),
            rf"{block}ff\.net\.0\.proj": r"joint_blocks.\1.x_block.mlp.fc1",
            rf"{block}ff\.net\.2": r"joint_blocks.\1.x_block.mlp.fc2",
            rf"{block}ff_context\.net\.0\.proj": r"joint_blocks.\1.context_block.mlp.fc1",
            rf"{block}ff_context\.net\.2": r"joint_blocks.\1.context_block.mlp.fc2",
        }
    )


def _next_dit(modules: Mapping[str, nn.Module], attention: str) -> Renamer:
    """Lumina 2 and Z-Image, of one class here; diffusers calls their attentions by different names."""
    block = rf"((?:noise_refiner|context_refiner|layers)\.\d+)\.{attention}\."
    return _table(
        {
            rf"{block}to_out\.0": r"\1.attention.out",
            rf"{block}to_([qkv])": lambda m: _fused(modules, f"{m[1]}.attention.qkv", "qkv".index(m[2])),
        }
    )


def _flux(modules: Mapping[str, nn.Module]) -> Renamer:
    double, single = r"transformer_blocks\.(\d+)\.", r"single_transformer_blocks\.(\d+)\."
    width = getattr(modules["img_in"], "out_features", 0)

    def mlp(m: re.Match[str]) -> tuple[str, Rows] | None:
        name = f"single_blocks.{m[1]}.linear1"
        whole = getattr(modules.get(name), "out_features", 0)
        return (name, (3 * width, whole)) if width and whole > 3 * width else None

    return _table(
        {
            rf"{double}attn\.to_out\.0": r"double_blocks.\1.img_attn.proj",
            rf"{double}attn\.to_add_out": r"double_blocks.\1.txt_attn.proj",
            rf"{double}attn\.to_([qkv])": lambda m: _fused(modules, f"double_blocks.{m[1]}.img_attn.qkv", "qkv".index(m[2])),
            rf"{double}attn\.add_([qkv])_proj": lambda m: _fused(modules, f"double_blocks.{m[1]}.txt_attn.qkv", "qkv".index(m[2])),
            rf"{double}ff\.net\.0\.proj": r"double_blocks.\1.img_mlp.0",
            rf"{double}ff\.net\.2": r"double_blocks.\1.img_mlp.2",
            rf"{double}ff_context\.net\.0\.proj": r"double_blocks.\1.txt_mlp.0",
            rf"{double}ff_context\.net\.2": r"double_blocks.\1.txt_mlp.2",
            rf"{single}(?:proj_out|attn\.to_out)": r"single_blocks.\1.linear2",
            rf"{single}attn\.to_([qkv])": lambda m: _fused(modules, f"single_blocks.{m[1]}.linear1", "qkv".index(m[2]), width=width),
            rf"{single}proj_mlp": mlp,
        }
    )
