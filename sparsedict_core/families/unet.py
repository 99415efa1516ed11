"""SD1.5, SD2 and SDXL UNets: every transformer block is a layer, numbered down, mid, up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..site import SiteName
from .base import Family, blocks_with_self_and_cross, has


def _name(model: Any) -> str:
    config = model.config
    if getattr(config, "addition_embed_type", None) == "text_time":
        return "sdxl"
    width = getattr(config, "cross_attention_dim", 768)
    return "sd2" if width == 1024 else "sd15"


def _sites(model: Any) -> Iterator[SiteName]:
    parts = [(f"down_blocks.{i}", block) for i, block in enumerate(model.down_blocks)]
    if has(model, "mid_block"):
        parts.append(("mid_block", model.mid_block))
    parts += [(f"up_blocks.{i}", block) for i, block in enumerate(model.up_blocks)]
    layer = 0
    for path, part in parts:
        for number, transformer in enumerate(getattr(part, "attentions", None) or []):
            blocks = getattr(transformer, "transformer_blocks", None) or []
            yield from blocks_with_self_and_cross(blocks, f"{path}.attentions.{number}.transformer_blocks", layer)
            layer += len(blocks)


FAMILY = Family(("UNet2DConditionModel",), "unet", _name, _sites)
