"""Where in a picture an atom acts: its coefficients, laid over the picture as a coloured map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .images import enlarged, image_strip

if TYPE_CHECKING:
    from PIL import Image


def coefficient_map(image: Image.Image, maps: Sequence[Any], labels: Sequence[str], columns: int | None = None, side: int = 160, for_node: bool = False) -> Image.Image:
    """The picture, then once more for each map (h, w), darkened where that atom is silent and coloured where it acts.

    Each map has its own scale, from 0 to its maximum: the label should carry the strength where that is of interest.
    """
    if len(maps) != len(labels):
        raise ValueError(f"{len(maps)} maps but {len(labels)} labels")
    # Enlarged before the maps are laid over it, so that they are smooth and the picture's pixels stay sharp.
    image = enlarged(image.convert("RGB"), side)
    return image_strip([image, *(overlay(image, one) for one in maps)], ["picture", *labels], columns, side, for_node)


def overlay(image: Image.Image, coefficients: Any) -> Image.Image:
    """One map (h, w) of magnitudes over the picture, in viridis; the picture shows through in grey."""
    import matplotlib
    import numpy as np
    from PIL import Image

    values = np.abs(np.asarray(getattr(coefficients, "detach", lambda: coefficients)(), dtype=np.float32))
    top = float(values.max()) if values.size else 0.0
    share = Image.fromarray(values / top if top > 0 else values).resize(image.size, Image.Resampling.BICUBIC)
    weight = np.clip(np.asarray(share), 0, 1)[..., None]
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None].repeat(3, axis=2)
    colour = matplotlib.colormaps["viridis"](weight[..., 0])[..., :3] * 255
    opacity = 0.85 * np.sqrt(weight)
    mixed = (1 - opacity) * (0.45 * grey) + opacity * colour
    return Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))
