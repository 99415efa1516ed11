"""Lumina2: refiners of the text and of the image side by side, then blocks over both together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..site import SiteName
from .base import Family


def _sites(model: Any) -> Iterator[SiteName]:
    refiners = max(len(model.noise_refiner), len(model.context_refiner))
    for layer in range(refiners):
        if layer < len(model.noise_refiner):
            yield SiteName(f"noise_refiner.{layer}.attn.to_out.0", layer, "image")
        if layer < len(model.context_refiner):
            yield SiteName(f"context_refiner.{layer}.attn.to_out.0", layer, "text")
    for number in range(len(model.layers)):
        yield SiteName(f"layers.{number}.attn.to_out.0", refiners + number)


FAMILY = Family(("Lumina2Transformer2DModel",), "transformer", lambda model: "lumina2", _sites)
