"""The families by class name. A new one is one file beside these and one line here."""

from __future__ import annotations

from . import flux, hunyuan_dit, lumina2, pixart, qwen_image, sana, sd3, unet, wan
from .base import Family

FAMILIES: tuple[Family, ...] = (
    unet.FAMILY,
    sd3.FAMILY,
    flux.FAMILY,
    pixart.FAMILY,
    sana.FAMILY,
    lumina2.FAMILY,
    wan.FAMILY,
    qwen_image.FAMILY,
    hunyuan_dit.FAMILY,
)


def known_families() -> str:
    """The model classes of all families, for messages."""
    return ", ".join(cls for family in FAMILIES for cls in family.classes)
