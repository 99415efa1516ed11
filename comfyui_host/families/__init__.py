"""The host's families, in the order in which they are tried. A new one is one file beside these and one line here."""

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
