"""SD1.5, SD2 and SDXL UNets, through the host's own key map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...sparsedict_core.families import unet
from .base import HostFamily, from_key_map


def _name(kind: str, modules: frozenset[str], config: Mapping[str, Any]) -> str:
    if config.get("context_dim") == 1024:
        return "sd2"
    return "sdxl" if config.get("num_classes") == "sequential" else "sd15"


def _names(modules: frozenset[str], config: Mapping[str, Any]) -> dict[str, str]:
    from comfy.utils import unet_to_diffusers

    return from_key_map(unet_to_diffusers(dict(config)), r".*\.transformer_blocks\.\d+\.attn[12]\.to_out\.0")


CLASSES = ("BaseModel", "SD21UNCLIP", "SDXL", "SDXLRefiner", "SD15_instructpix2pix", "SDXL_instructpix2pix", "Lotus", "SD_X4Upscaler", "Stable_Zero123")
FAMILY = HostFamily(CLASSES, "SD1.5, SD2, SDXL", "input_blocks.0", _name, _names, unet.FAMILY)
