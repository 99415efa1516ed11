"""Qwen-Image, which the host names as diffusers does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...sparsedict_core.families import qwen_image
from .base import HostFamily, renamed

TABLE = {
    r"(transformer_blocks\.\d+\.attn\.(?:to_out\.0|to_add_out))": r"\1",
}


def _names(modules: frozenset[str], config: Mapping[str, Any]) -> dict[str, str]:
    return renamed(modules, TABLE)


FAMILY = HostFamily(("QwenImage",), "Qwen-Image", "transformer_blocks.0.attn.to_add_out", lambda kind, modules, config: "qwen_image", _names, qwen_image.FAMILY)
