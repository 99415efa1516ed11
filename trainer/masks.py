"""Where in a picture the loss counts: a mask file's white, or what is not transparent."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..sparsedict_core.errors import DataError
from .images import Picture, read_picture

#: By name: mask files where there are some; the pictures' own transparency too; neither.
MASKS = ("files", "alpha", "off")
OTHER_SHAPE = 1.05  # how far the aspects of a mask and its picture may differ: rounding when one of them was resized


def mask_of(picture: Picture, file: Path | None, masks: str) -> Tensor | None:
    """(1, H, W) from 0 to 1 at the picture's size, or None where all of it counts.

    Raises DataError for a mask of another shape, or one that leaves nothing.
    """
    if masks == "off":
        return None
    if file is None:
        return picture.alpha if masks == "alpha" else None
    read = read_picture(file)
    mask = (read.image.mean(0, keepdim=True) + 1) / 2
    if read.alpha is not None:
        mask = mask - (1 - read.alpha)  # a transparent part was laid on white, which would count
    height, width = picture.image.shape[1:]
    ratio = mask.shape[2] / mask.shape[1] * height / width
    if not 1 / OTHER_SHAPE < ratio < OTHER_SHAPE:
        raise DataError(f"{file} is a mask of {mask.shape[2]}×{mask.shape[1]} for a picture of another shape; make it anew from the picture")
    mask = F.interpolate(mask[None], (height, width), mode="bilinear", antialias=True)[0].clamp(0, 1)
    if not bool((mask > 0.5).any()):
        raise DataError(f"{file} is a mask without white, so nothing of its picture would count; paint white what is to be learned")
    return mask


def latent_weights(masks: list[Tensor | None], outside: float, size: tuple[int, int]) -> Tensor | None:
    """Masks (1, H, W) of equal size as the loss's weights (n, 1, h, w) at the latents' size; None where all of every picture counts."""
    if all(mask is None for mask in masks):
        return None
    rows = [torch.ones(1, 1, *size) if mask is None else F.interpolate(mask[None], size, mode="area") for mask in masks]
    return outside + (1 - outside) * torch.cat(rows)
