"""Lumina2, and Z-Image, which is of the same class in the host and has other names in diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...sparsedict_core.families import lumina2
from .base import HostFamily, renamed

BLOCK = r"((?:noise_refiner|context_refiner|layers)\.\d+)\.attention\.out"
TABLES = {"lumina2": {BLOCK: r"\1.attn.to_out.0"}, "z_image": {BLOCK: r"\1.attention.to_out.0"}}


def _name(kind: str, modules: frozenset[str], config: Mapping[str, Any]) -> str:
    return "lumina2" if config.get("pad_tokens_multiple") is None else "z_image"


def _names(modules: frozenset[str], config: Mapping[str, Any]) -> dict[str, str]:
    return renamed(modules, TABLES[_name("", modules, config)])


FAMILY = HostFamily(("Lumina2",), "Lumina2, Z-Image", "noise_refiner.0.attention.out", _name, _names, lumina2.FAMILY)
