"""What a reader tells of a picture of the world of drawings, and how two drawings in one picture are read apart."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .scene import GROUNDS, PATTERNS, PLACES, SIZE, SIZES
from .sheets import NAMES, STYLE_NAMES

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "subject": NAMES,
    "style": STYLE_NAMES,
    "size": tuple(SIZES),
    "place": tuple(PLACES),
    "ground": tuple(GROUNDS),
    "pattern": PATTERNS,
}
_HALF = SIZE // 2


def half(images: Tensor, place: str) -> Tensor:
    """The half of pictures (B, 3, 96, 96) at a place, its inner edge drawn out to full size, so that the other half is gone."""
    if place in ("left", "right"):
        part = images[..., :_HALF] if place == "left" else images[..., _HALF:]
        return F.pad(part, (0, _HALF, 0, 0) if place == "left" else (_HALF, 0, 0, 0), mode="replicate")
    part = images[..., :_HALF, :] if place == "top" else images[..., _HALF:, :]
    return F.pad(part, (0, 0, 0, _HALF) if place == "top" else (0, 0, _HALF, 0), mode="replicate")


def accuracy(logits: dict[str, Tensor], labels: dict[str, Tensor]) -> dict[str, float]:
    """Share of rows that are right, by attribute; a label of −100 is not counted."""
    found = {}
    for name, values in logits.items():
        counted = labels[name] >= 0
        found[name] = float((values.argmax(1) == labels[name])[counted].float().mean()) if bool(counted.any()) else float("nan")
    return found


def labels_of(stickers: list[tuple[str, str, str, str]], grounds: list[tuple[str, str]], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Labels (B) by attribute for (subject, style, size, place) and (ground, pattern)."""
    columns = [*zip(*stickers, strict=True), *zip(*grounds, strict=True)]
    return {name: torch.tensor([values.index(v) for v in column], device=device) for (name, values), column in zip(ATTRIBUTES.items(), columns, strict=True)}
