"""PixArt-α and PixArt-Σ: self and cross attention in every block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..site import SiteName
from .base import Family, blocks_with_self_and_cross


def _sites(model: Any) -> Iterator[SiteName]:
    return blocks_with_self_and_cross(model.transformer_blocks, "transformer_blocks")


FAMILY = Family(("PixArtTransformer2DModel",), "transformer", lambda model: "pixart", _sites)
