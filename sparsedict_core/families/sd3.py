"""SD3 and SD3.5: joint blocks with an image and a text stream; the last block has no text output.

Some SD3.5 blocks have a second attention over the image alone: stream `dual`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..site import SiteName
from .base import Family, has


def _sites(model: Any) -> Iterator[SiteName]:
    for layer, block in enumerate(model.transformer_blocks):
        path = f"transformer_blocks.{layer}"
        yield SiteName(f"{path}.attn.to_out.0", layer, "image")
        if has(block.attn, "to_add_out"):
            yield SiteName(f"{path}.attn.to_add_out", layer, "text")
        if has(block, "attn2"):
            yield SiteName(f"{path}.attn2.to_out.0", layer, "dual")


FAMILY = Family(("SD3Transformer2DModel",), "transformer", lambda model: "sd3", _sites)
