"""Qwen-Image: joint blocks with an image and a text stream.

The last block's text output is computed but used by nothing, so it is no site: an adapter there would never learn.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..site import SiteName
from .base import Family


def _sites(model: Any) -> Iterator[SiteName]:
    last = len(model.transformer_blocks) - 1
    for layer in range(last + 1):
        yield SiteName(f"transformer_blocks.{layer}.attn.to_out.0", layer, "image")
        if layer < last:
            yield SiteName(f"transformer_blocks.{layer}.attn.to_add_out", layer, "text")


FAMILY = Family(("QwenImageTransformer2DModel",), "transformer", lambda model: "qwen_image", _sites)
