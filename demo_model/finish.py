"""How a style's drawings are cut: what makes a style one thing across all subjects, so that a base can learn the word by itself.

A glossy sticker casts a soft shadow, a flat one has a white edge, one in ink is printed on white paper. Our choice: the two emoji sets
differ from drawing to drawing, with nothing in common that tells the one from the other.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

PAD = 4  # pixels that an edge or a shadow may take around a drawing
EDGE = 1 / 24  # width of the white edge, of a drawing's side
SHADOW = 0.5  # opacity
SHADOW_SOFTNESS, SHADOW_DROP = 1 / 36, 1 / 20  # of a drawing's side


def finished(drawings: Tensor, style: str) -> Tensor:
    """Premultiplied RGBA drawings (B, 4, s, s) with what lies around and beneath them, (B, 4, s + 2·PAD, s + 2·PAD)."""
    side = drawings.shape[-1]
    padded = F.pad(drawings, (PAD,) * 4)
    alpha = padded[:, 3:]
    if style == "glossy":
        shade = SHADOW * _dropped(_blurred(alpha, SHADOW_SOFTNESS * side), round(SHADOW_DROP * side))
        beneath = torch.cat([torch.zeros_like(padded[:, :3]), shade], 1)
    else:
        paper = _grown(alpha, EDGE * side)
        if style == "ink":
            paper = 1 - _outside(paper) * (1 - paper)
        beneath = paper.expand(-1, 4, -1, -1)
    return (padded + beneath * (1 - alpha)).clamp(0, 1)


def _grown(alpha: Tensor, radius: float) -> Tensor:
    """Coverage (B, 1, h, w) grown by a smooth disc."""
    reach = math.ceil(radius)
    grown = alpha
    for y in range(-reach, reach + 1):
        for x in range(-reach, reach + 1):
            weight = min(1.0, radius + 0.5 - math.hypot(x, y))
            if weight > 0:
                grown = torch.maximum(grown, weight * alpha.roll((y, x), (2, 3)))
    return grown


def _blurred(alpha: Tensor, sigma: float) -> Tensor:
    axis = torch.arange(-PAD, PAD + 1, dtype=alpha.dtype)
    kernel = torch.softmax(-axis.square() / (2 * sigma**2), 0)
    return F.conv2d(F.conv2d(alpha, kernel.view(1, 1, -1, 1), padding=(PAD, 0)), kernel.view(1, 1, 1, -1), padding=(0, PAD))


def _dropped(alpha: Tensor, pixels: int) -> Tensor:
    return F.pad(alpha, (0, 0, pixels, 0))[:, :, : alpha.shape[2]]


def _outside(paper: Tensor) -> Tensor:
    """1 where the picture's edge is reached without crossing `paper` (B, 1, h, w), else 0: holes are not outside."""
    free = (paper < 0.5).to(paper.dtype)
    reached = free.clone()
    reached[:, :, 1:-1, 1:-1] = 0
    while True:
        # A step at a time to the four sides, so that a line one pixel wide stops it.
        wider = torch.maximum(F.max_pool2d(reached, (3, 1), 1, (1, 0)), F.max_pool2d(reached, (1, 3), 1, (0, 1))) * free
        if torch.equal(wider, reached):
            return reached
        reached = wider
