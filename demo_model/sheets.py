"""The drawings as sheets of pixels: one lossless picture a style, subjects and then concepts in the order of `subjects`.

Sources and licences: NOTICE. Made by `tools/make_drawing_sheets.py`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .finish import finished
from .subjects import CONCEPTS, SEEN_STYLES, STYLES, SUBJECTS

FOLDER = Path(__file__).parent / "drawings"
CELL = 72  # pixels of a drawing; the largest in a scene has 60
COLUMNS = 20
NAMES = (*SUBJECTS, *CONCEPTS)
STYLE_NAMES = tuple(STYLES)


def sprite_index(subject: str, style: str) -> int:
    """The row of `sprites` that holds a subject in a style. Raises ValueError for one that is not drawn."""
    return STYLE_NAMES.index(style) * len(NAMES) + NAMES.index(subject)


def recut_index(subject: str, cut: str) -> int:
    """The row behind those of `sprites`, in `recut_sprites`, that holds the other seen style's drawing of a subject in this style's cut."""
    return (len(STYLE_NAMES) + SEEN_STYLES.index(cut)) * len(NAMES) + NAMES.index(subject)


def drawings(size: int, style: str) -> Tensor:
    """A style's drawings as its sheet has them, premultiplied RGBA, (names, 4, size, size) in [0, 1]."""
    rows = []
    sheet = Image.open(FOLDER / f"{style}.webp").convert("RGBA")
    for index in range(len(NAMES)):
        left, top = (index % COLUMNS) * CELL, (index // COLUMNS) * CELL
        # Pillow averages over the pixels that a smaller one covers, and weighs colours by alpha in RGBa.
        cell = sheet.crop((left, top, left + CELL, top + CELL)).convert("RGBa").resize((size, size), Image.Resampling.LANCZOS)
        rows.append(torch.from_numpy(np.frombuffer(cell.tobytes(), np.uint8).copy()).view(size, size, 4))
    return torch.stack(rows).permute(0, 3, 1, 2).float() / 255


@cache
def sprites(size: int) -> Tensor:
    """All drawings, cut as their style is, (styles · names, 4, side, side) with side = size + 2 · `finish.PAD`. Do not write to it."""
    return torch.cat([finished(drawings(size, style), style) for style in STYLE_NAMES])


@cache
def recut_sprites(size: int) -> Tensor:
    """What no style draws: either seen style's drawings in the other's cut, (2 · names, 4, side, side), by the cut. Do not write to it."""
    return torch.cat([finished(drawings(size, other), cut) for cut, other in zip(SEEN_STYLES, SEEN_STYLES[::-1], strict=True)])
