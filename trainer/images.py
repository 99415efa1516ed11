"""Reading a picture file into a tensor. Every way in which a file can be bad ends in a DataError that names it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..sparsedict_core.errors import DataError

# HEIC needs a plug-in that most have not, but it is what phones write: an error is better than a picture left out in silence.
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif"})


def is_picture(path: Path) -> bool:
    """Whether the name is that of a picture; hidden files are not (macOS leaves `._photo.jpg` beside photo.jpg)."""
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")


def read_image(path: Path | str) -> Tensor:
    """A picture file → (3, H, W) float32 in [-1, 1], upright, on white where it is transparent.

    Raises DataError for a file that is missing, empty, unreadable, animated, without pixels, or of unknown value range.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is not a file; give the path of a picture")
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty (0 bytes); copy the picture again or remove the file")
        with Image.open(path) as image:
            check_frames(image, path)
            image.load()
            file_format = image.format  # turning a picture upright forgets it
            pixels = to_unit_range(ImageOps.exif_transpose(image), path, file_format)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on a damaged file: OSError, SyntaxError, struct.error, …
        raise DataError(f"{path} cannot be read as a picture ({reason(error)}); save it again as PNG or JPEG, or remove it") from error
    if pixels.shape[0] == 0 or pixels.shape[1] == 0:
        raise DataError(f"{path} has no pixels ({pixels.shape[1]}×{pixels.shape[0]}); replace or remove it")
    return torch.from_numpy(pixels).permute(2, 0, 1).mul(2).sub(1).contiguous()


def check_frames(image: Image.Image, path: Path) -> None:
    """Refuse animations and documents of several pages: which frame is meant, only their owner knows."""
    frames = getattr(image, "n_frames", 1)
    # A phone's MPO is an ordinary JPEG with a preview or depth picture behind it: its first frame is the photo.
    if frames > 1 and image.format != "MPO":
        raise DataError(f"{path} is animated or has several pages ({frames} frames); save the frame you want as a PNG")


def to_unit_range(image: Image.Image, path: Path, file_format: str | None) -> np.ndarray:
    """A loaded picture of any mode → (H, W, 3) float32 in [0, 1]."""
    # Older versions of Pillow open a 16-bit PNG in the 32-bit mode; a PNG has no deeper values than 16 bits.
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format == "PNG"):
        return from_sixteen_bits(image)
    if image.mode in ("I", "F"):
        raise DataError(f"{path} has 32-bit values, whose black and white are unknown; save it with 8 or 16 bits a channel")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        values = np.asarray(image.convert("RGBA"), dtype=np.float32) / 255
        alpha = values[..., 3:]
        return values[..., :3] * alpha + (1 - alpha)
    return np.asarray(image.convert("RGB"), dtype=np.float32) / 255


def from_sixteen_bits(image: Image.Image) -> np.ndarray:
    """A 16-bit grey picture → (H, W, 3) float32 in [0, 1]; Pillow's own conversion to RGB would clip it to white at 255."""
    grey = np.asarray(image).astype(np.float32) / 65535
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[np.asarray(image) == clear] = 1
    return np.repeat(grey[..., None], 3, axis=2)


def reason(error: Exception) -> str:
    """The error's own words in one line, without the path that Pillow likes to repeat."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "no known picture format"
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(words.split()).rstrip(".")
