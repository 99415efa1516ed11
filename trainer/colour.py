"""Any picture's colours as sRGB, which is what base models were trained on. Without this, wide-gamut photos are learned too grey."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms

BLACK_POINT_COMPENSATION: Any = 0x2000  # older versions of Pillow have no name for it
RELATIVE = ImageCms.Intent.RELATIVE_COLORIMETRIC  # with the former: what photo programs do by default
ROUNDING = 1  # of 255; a profile that changes no colour by more is sRGB itself
MODES = ("RGB", "L", "CMYK", "LAB")
CONVERTED = "other colours, converted to sRGB"

EXIF, INTEROPERABILITY = 0x8769, 0xA005
COLOUR_SPACE, INDEX = 0xA001, 1
ADOBE_GAMMA = 563 / 256
#: Linear Adobe RGB (1998) → linear sRGB; both have the same white.
ADOBE_TO_SRGB = np.array([[1.3983557, -0.3983557, 0.0], [0.0, 1.0, 0.0], [0.0, -0.0429290, 1.0429290]], dtype=np.float32)


def to_srgb(image: Image.Image, adobe: bool = False) -> tuple[Image.Image, list[str]]:
    """A picture without transparency, of 8 bits a channel → mode RGB in sRGB, and what the user should know of it.

    `adobe`: without a profile, it is Adobe RGB.
    """
    if image.mode not in MODES:
        image = image.convert("RGB")
    data = image.info.get("icc_profile")
    if data or image.mode == "LAB":
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(data)) if data else ImageCms.createProfile("LAB")
            made = by_profile(image, source)
            return (image.convert("RGB"), []) if made is None else (made, [CONVERTED])
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            return image.convert("RGB"), ["its colour profile cannot be used, so its colours are taken as sRGB"]
    if image.mode == "CMYK":
        return image.convert("RGB"), ["CMYK without a profile, so its colours are a guess"]
    if image.mode == "RGB" and adobe:
        return from_adobe(image), [CONVERTED]
    return image.convert("RGB"), []


def by_profile(image: Image.Image, source: ImageCms.ImageCmsProfile | ImageCms.core.CmsProfile) -> Image.Image | None:
    """The picture as its profile means it; None where that is sRGB already. Raises PyCMSError for a profile that is damaged or of another mode."""
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), image.mode, "RGB", RELATIVE, BLACK_POINT_COMPENSATION)
    if image.mode in ("RGB", "L") and changes_nothing(transform, image.mode):
        return None
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None
    return converted


def changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether the source is sRGB itself. Then pictures are left alone: each conversion rounds."""
    levels: np.ndarray = np.arange(0, 256, 17, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(16, 256, 3)
    probe = Image.fromarray(colours if mode == "RGB" else np.ascontiguousarray(colours[..., 0]))
    converted = ImageCms.applyTransform(probe, transform)
    change = np.asarray(converted, dtype=np.int16) - np.asarray(probe.convert("RGB"), dtype=np.int16)
    return bool(np.abs(change).max() <= ROUNDING)


def says_adobe(image: Image.Image) -> bool:
    """Whether a camera says Adobe RGB in the Exif data alone, as most do instead of embedding the profile."""
    exif = image.getexif()
    if exif.get_ifd(EXIF).get(COLOUR_SPACE) == 2:
        return True
    try:
        interoperability = exif.get_ifd(INTEROPERABILITY)
    except KeyError:  # Pillow before 10, where there is none
        return False
    return str(interoperability.get(INDEX, "")).startswith("R03")


def from_adobe(image: Image.Image) -> Image.Image:
    """Adobe RGB (1998) → sRGB, mode RGB."""
    linear = ((np.asarray(image, dtype=np.float32) / 255) ** ADOBE_GAMMA @ ADOBE_TO_SRGB.T).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return Image.fromarray((encoded * 255).round().astype(np.uint8))
