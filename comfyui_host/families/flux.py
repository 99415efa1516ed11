"""Flux, Flux 2, Chroma, LongCat and HunyuanVideo: one layout of double and single blocks, through the host's own key map for Flux."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...sparsedict_core.families import flux
from .base import HostFamily, from_key_map

NAME_OF = {
    "Flux": "flux",
    "Flux2": "flux2",
    "Chroma": "chroma",
    "ChromaRadiance": "chroma_radiance",
    "LongCatImage": "longcat_image",
    **dict.fromkeys(
        (
            "HunyuanVideo", "HunyuanVideoI2V", "HunyuanVideoSkyreelsI2V", "HunyuanVideo15", "HunyuanVideo15_SR_Distilled", "HunyuanImage21",
            "HunyuanImage21Refiner",
        ),
        "hunyuan_video",
    ),
}  # fmt: skip


def _names(modules: frozenset[str], config: Mapping[str, Any]) -> dict[str, str]:
    from comfy.utils import flux_to_diffusers

    found = from_key_map(
        flux_to_diffusers(dict(config)),
        r"transformer_blocks\.\d+\.attn\.(to_out\.0|to_add_out)|single_transformer_blocks\.\d+\.proj_out",
    )
    if "double_stream_modulation_img" not in modules:
        return found
    # Flux 2's single blocks do all in one attention, whose output diffusers names otherwise.
    return {name.replace(".proj_out", ".attn.to_out"): host for name, host in found.items()}


FAMILY = HostFamily(
    tuple(NAME_OF), "Flux, Flux 2, Chroma, LongCat, HunyuanVideo", "double_blocks.0", lambda kind, modules, config: NAME_OF[kind], _names, flux.FAMILY
)
