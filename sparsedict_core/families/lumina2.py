"""Lumina2 and Z-Image: refiners of the text and of the image side by side, then blocks over both together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..site import SiteName
from .base import Family, has

FAMILY_OF = {"Lumina2Transformer2DModel": "lumina2", "ZImageTransformer2DModel": "z_image"}


def _sites(model: Any) -> Iterator[SiteName]:
    output = "attention.to_out.0" if has(model.layers[0], "attention") else "attn.to_out.0"
    refiners = max(len(model.noise_refiner), len(model.context_refiner))
    for layer in range(refiners):
        if layer < len(model.noise_refiner):
            yield SiteName(f"noise_refiner.{layer}.{output}", layer, "image")
        if layer < len(model.context_refiner):
            yield SiteName(f"context_refiner.{layer}.{output}", layer, "text")
    for number in range(len(model.layers)):
        yield SiteName(f"layers.{number}.{output}", refiners + number)


FAMILY = Family(tuple(FAMILY_OF), "transformer", lambda model: FAMILY_OF[type(model).__name__], _sites)
