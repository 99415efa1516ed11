"""Reading a picture file into a tensor. Every way in which a file can be bad ends in a DataError that names it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, features
from torch import Tensor

from ..sparsedict_core.errors import DataError
from .colour import says_adobe, to_srgb

# HEIC needs a plug-in that most have not, but it is what phones write: an error is better than a picture left out in silence.
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif"})
HEIF_SUFFIXES = (".heic", ".heif")


class Picture(NamedTuple):
    """A picture file's content, upright."""

    image: Tensor  # (3, H, W) float32 in [-1, 1], sRGB, on white where it is transparent
    alpha: Tensor | None  # (1, H, W) from 0, transparent, to 1; None for a picture without transparency
    size: tuple[int, int]  # (height, width) in the file
    notes: list[str]  # what the user should know of how it was read


def is_picture(path: Path) -> bool:
    """Whether the name is that of a picture; hidden files are not (macOS leaves `._photo.jpg` beside photo.jpg)."""
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")


def read_image(path: Path | str) -> Tensor:
    """A picture file → (3, H, W) float32 in [-1, 1], sRGB, upright, on white where it is transparent.

    Raises DataError for a file that is missing, empty, unreadable, animated, without pixels, or of unknown value range.
    """
    return read_picture(Path(path)).image


def read_picture(path: Path, area: float = math.inf) -> Picture:
    """The same with all else that is in the file. A picture of more than `area` pixels is shrunk to that while it is decoded."""
    with opened(path) as image:
        size, wanted = image.size, shrunk_size(image.size, area)
        if wanted != size:
            image.draft(None, wanted)  # a JPEG is decoded at a half, a quarter or an eighth, no smaller than this
        image.load()
        # Older versions of Pillow open a 16-bit PNG in the 32-bit mode; a PNG has no deeper values than 16 bits.
        sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
        adobe, decoded = says_adobe(image), image.size
        try:
            ImageOps.exif_transpose(image, in_place=True)
        except TypeError:  # Pillow before 10, which AUTOMATIC1111 has
            image = ImageOps.exif_transpose(image)
        if image.size != decoded:
            size, wanted = size[::-1], wanted[::-1]
        if sixteen:
            pixels, alpha, notes = from_sixteen_bits(image, wanted)
        else:
            pixels, alpha, notes = from_eight_bits(image, wanted, adobe, path)
    if pixels.shape[0] == 0 or pixels.shape[1] == 0:
        raise DataError(f"{path} has no pixels ({pixels.shape[1]}×{pixels.shape[0]}); replace or remove it")
    # In place, as a large photo in float is large.
    picture = torch.from_numpy(pixels).permute(2, 0, 1).mul_(2).sub_(1).contiguous()
    return Picture(picture, None if alpha is None else torch.from_numpy(alpha)[None], size[::-1], notes)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A picture file of which only the start is read so far. Whatever is wrong with it, until it is closed again, is a DataError that names it."""
    if not path.is_file():
        raise DataError(f"{path} is not a file; give the path of a picture")
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty (0 bytes); copy the picture again or remove the file")
        with contextlib.suppress(ImportError):
            if path.suffix.lower() in HEIF_SUFFIXES:
                from pillow_heif import register_heif_opener

                register_heif_opener()
        with Image.open(path) as image:
            check_frames(image, path)
            yield image
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on a damaged file: OSError, SyntaxError, struct.error, …
        raise DataError(f"{path} cannot be read as a picture ({reason(error, path)}); save it again as PNG or JPEG, or remove it") from error


def shrunk_size(size: tuple[int, int], area: float) -> tuple[int, int]:
    """(width, height) of the same shape with at most about `area` pixels; itself if it has no more."""
    width, height = size
    if width * height <= area:
        return size
    scale = math.sqrt(area / (width * height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def check_frames(image: Image.Image, path: Path) -> None:
    """Refuse animations and documents of several pages: which frame is meant, only their owner knows."""
    frames = getattr(image, "n_frames", 1)
    # A phone's MPO is an ordinary JPEG with a preview or depth picture behind it: its first frame is the photo.
    if frames > 1 and image.format != "MPO":
        raise DataError(f"{path} is animated or has several pages ({frames} frames); save the frame you want as a PNG")


def from_eight_bits(image: Image.Image, size: tuple[int, int], adobe: bool, path: Path) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """An upright picture of any mode → (H, W, 3) float32 in [0, 1] on white, its alpha (H, W) if it has one, and notes."""
    if image.mode in ("I", "F"):
        raise DataError(f"{path} has 32-bit values, whose black and white are unknown; save it with 8 or 16 bits a channel")
    if image.mode in ("PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode in ("P", "1", "La"):  # what cannot be resized as it is
        image = image.convert({"P": "RGB", "1": "L", "La": "LA"}[image.mode])
    if image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    if image.mode not in ("RGBA", "LA"):
        colours, notes = to_srgb(image, adobe)
        return scaled(colours), None, notes
    colours, notes = to_srgb(image.convert("RGB") if image.mode == "RGBA" else image.getchannel("L"), adobe)
    alpha = scaled(image.getchannel("A"))
    return scaled(colours) * alpha[..., None] + (1 - alpha[..., None]), alpha, notes


def scaled(image: Image.Image) -> np.ndarray:
    """8 bits a channel → float32 in [0, 1]."""
    values = np.asarray(image, dtype=np.float32)
    values /= 255
    return values


def from_sixteen_bits(image: Image.Image, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """The same for a grey picture of 16 bits; Pillow's own conversion to RGB would clip it to white at 255."""
    values = np.asarray(image)
    grey, alpha = values.astype(np.float32) / 65535, None
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        alpha = (values != clear).astype(np.float32)
        grey[values == clear] = 1
    notes = ["its colour profile is left out, as it has 16 bits"] if image.info.get("icc_profile") else []
    if image.size != size:
        grey, alpha = (None if part is None else resized(part, size) for part in (grey, alpha))
    return np.repeat(grey[..., None], 3, axis=2), alpha, notes


def resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) float32 in [0, 1] → (H, W), antialiased."""
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)).clip(0, 1)


def reason(error: Exception, path: Path) -> str:
    """The error's own words in one line, without the path that Pillow likes to repeat; for a format that needs a plug-in, which."""
    if isinstance(error, Image.UnidentifiedImageError):
        if path.suffix.lower() in HEIF_SUFFIXES and not any(suffix in Image.registered_extensions() for suffix in HEIF_SUFFIXES):
            return "HEIC needs the package pillow-heif: pip install pillow-heif"
        if path.suffix.lower() == ".avif" and not features.check("avif"):
            return "AVIF needs Pillow 11.3 or newer"
        return "what it holds is no known picture format, whatever its name says"
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(words.split()).rstrip(".")
