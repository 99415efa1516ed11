"""The host's families. A new one is one file beside these and one line here."""

from __future__ import annotations

from . import flux, hunyuan_dit, lumina2, qwen_image, sd3, unet, wan
from .base import HostFamily

HOST_FAMILIES: tuple[HostFamily, ...] = (
    unet.FAMILY,
    sd3.FAMILY,
    flux.FAMILY,
    wan.FAMILY,
    hunyuan_dit.FAMILY,
    qwen_image.FAMILY,
    lumina2.FAMILY,
)


def family_of(kind: str, modules: frozenset[str]) -> HostFamily | None:
    """The family of the host's models of class `kind`; None for one that nobody wrote down."""
    return next((family for family in HOST_FAMILIES if kind in family.classes and family.mark in modules), None)


def known_models() -> str:
    """What people call the models that are written down, for messages."""
    return ", ".join(family.titles for family in HOST_FAMILIES)
