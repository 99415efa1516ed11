"""Flux: double blocks with an image and a text stream, then single blocks, whose fused output Linear carries the MLP too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..site import SiteName
from .base import Family


def _sites(model: Any) -> Iterator[SiteName]:
    double = len(model.transformer_blocks)
    for layer in range(double):
        yield SiteName(f"transformer_blocks.{layer}.attn.to_out.0", layer, "image")
        yield SiteName(f"transformer_blocks.{layer}.attn.to_add_out", layer, "text")
    for number in range(len(model.single_transformer_blocks)):
        yield SiteName(f"single_transformer_blocks.{number}.proj_out", double + number)


FAMILY = Family(("FluxTransformer2DModel",), "transformer", lambda model: "flux", _sites)
