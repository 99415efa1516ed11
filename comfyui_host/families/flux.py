"""Flux, Flux 2 and HunyuanVideo: one layout of double and single blocks, through the host's own key map for Flux."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...sparsedict_core.families import flux
from .base import HostFamily, from_key_map


def _name(modules: frozenset[str], config: Mapping[str, Any]) -> str:
    if "txt_in.individual_token_refiner" in modules:
        return "hunyuan_video"
    return "flux2" if "double_stream_modulation_img" in modules else "flux"


def _names(modules: frozenset[str], config: Mapping[str, Any]) -> dict[str, str]:
    from comfy.utils import flux_to_diffusers

    found = from_key_map(
        flux_to_diffusers(dict(config)),
        r"transformer_blocks\.\d+\.attn\.(to_out\.0|to_add_out)|single_transformer_blocks\.\d+\.proj_out",
    )
    if _name(modules, config) != "flux2":
        return found
    # Flux 2's single blocks do all in one attention, whose output diffusers names otherwise.
    return {name.replace(".proj_out", ".attn.to_out"): host for name, host in found.items()}


FAMILY = HostFamily("double_blocks.0", _name, _names, flux.FAMILY)
