"""Wan: self and cross attention in every block, over space and time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..site import SiteName
from .base import Family, blocks_with_self_and_cross


def _sites(model: Any) -> Iterator[SiteName]:
    return blocks_with_self_and_cross(model.blocks, "blocks")


FAMILY = Family(("WanTransformer3DModel",), "transformer", lambda model: "wan", _sites)
