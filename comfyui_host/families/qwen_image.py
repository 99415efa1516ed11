"""Qwen-Image, which the host names as diffusers does."""

from __future__ import annotations

from ...sparsedict_core.families import qwen_image
from .base import HostFamily, by_table

TABLE = {
    r"(transformer_blocks\.\d+\.attn\.(?:to_out\.0|to_add_out))": r"\1",
}
FAMILY = HostFamily(("QwenImage",), "Qwen-Image", "transformer_blocks.0.attn.to_add_out", lambda kind, modules, config: "qwen_image", by_table(TABLE), qwen_image.FAMILY)
