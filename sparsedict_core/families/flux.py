"""Flux, Flux 2, Chroma, LongCat and HunyuanVideo: double blocks with an image and a text stream, then single blocks, whose fused output Linear
carries the MLP too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..site import SiteName
from .base import Family, has

FAMILY_OF = {
    "FluxTransformer2DModel": "flux",
    "Flux2Transformer2DModel": "flux2",
    "ChromaTransformer2DModel": "chroma",
    "LongCatImageTransformer2DModel": "longcat_image",
    "HunyuanVideoTransformer3DModel": "hunyuan_video",
}


def _sites(model: Any) -> Iterator[SiteName]:
    double, single = len(model.transformer_blocks), getattr(model, "single_transformer_blocks", None) or []
    for layer in range(double):
        yield SiteName(f"transformer_blocks.{layer}.attn.to_out.0", layer, "image")
        # Without single blocks nothing reads the last text output, so an adapter there would never learn.
        if layer < double - 1 or len(single):
            yield SiteName(f"transformer_blocks.{layer}.attn.to_add_out", layer, "text")
    for number, block in enumerate(single):
        output = "proj_out" if has(block, "proj_out") else "attn.to_out"
        yield SiteName(f"single_transformer_blocks.{number}.{output}", double + number)


FAMILY = Family(tuple(FAMILY_OF), "transformer", lambda model: FAMILY_OF[type(model).__name__], _sites)
