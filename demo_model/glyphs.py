"""What the base has never seen: two-tone creatures for concepts, and a hatched drawing style.

Each comes with the exact masks that the measures need.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .scenes import BACKGROUNDS, JITTER, PLACES, SIZE, Scene, draw_background, pixel_grid, render

_SPRITE_CELLS = 8
_SPRITE_PIXELS = 96
HATCH_PERIOD = 8.0
HATCH_DEPTH = 0.30


@dataclass(frozen=True)
class Glyph:
    """A creature on an 8×8 grid: '.' nothing, 'A' body, 'B' accent; colours in [0, 1] RGB."""

    word: str
    rows: tuple[str, ...]
    body: tuple[float, float, float]
    accent: tuple[float, float, float]

    def colours(self) -> Tensor:
        """(2, 3) in [0, 1]."""
        return torch.tensor([self.body, self.accent])

    def sprite(self) -> Tensor:
        """Body and accent masks with rounded cells, (2, 96, 96) in [0, 1]."""
        cells = torch.tensor([[[float(c == tone) for c in row] for row in self.rows] for tone in "AB"])
        # Whole silhouette and accent are smoothed apart, so no gap opens between the tones.
        layers = torch.stack([cells.sum(0), cells[1]])
        smooth = F.interpolate(layers[None], size=_SPRITE_PIXELS, mode="bicubic", align_corners=False)[0]
        whole, accent = ((smooth - 0.5) * 6 + 0.5).clamp(0, 1)
        accent = torch.minimum(accent, whole)
        return torch.stack([whole - accent, accent])


GLYPHS = {
    "zorp": Glyph(
        "zorp",
        (
            "..A..A..",
            "..AAAA..",
            ".ABAABA.",
            "AAAAAAAA",
            "AABBBBAA",
            ".AABBAA.",
            ".AAAAAA.",
            ".A....A.",
        ),
        (0.08, 0.74, 0.70),
        (0.80, 0.08, 0.45),
    ),
    "blick": Glyph(
        "blick",
        (
            "B......B",
            "BB.AA.BB",
            "BBAAAABB",
            "BAABBAAB",
            ".AAAAAA.",
            "..AAAA..",
            "...AA...",
            "..A..A..",
        ),
        (0.62, 0.86, 0.10),
        (0.36, 0.10, 0.62),
    ),
    "quax": Glyph(
        "quax",
        (
            "...AA...",
            "..AAAA..",
            ".AABAAA.",
            ".AAAAABB",
            ".AAAAABB",
            "..AAAA..",
            "..ABBA..",
            ".BB..BB.",
        ),
        (0.98, 0.80, 0.72),
        (0.85, 0.25, 0.05),
    ),
    "mib": Glyph(
        "mib",
        (
            "A..AA..A",
            ".A.AA.A.",
            "..BBBB..",
            "AABAABAA",
            "..BAAB..",
            "..BBBB..",
            ".A.AA.A.",
            "A..AA..A",
        ),
        (0.30, 0.92, 0.95),
        (0.93, 0.30, 0.62),
    ),
}


@dataclass(frozen=True)
class Placement:
    """Where a glyph stands: a background's name, centre and radius in [-1, 1] units."""

    background: str
    x: float
    y: float
    radius: float


def place_glyph(place: str, background: str, rng: random.Random, radius: float = 0.44) -> Placement:
    """A placement at a named place, with the scenes' jitter."""
    cx, cy = PLACES[place]
    jitter = lambda: rng.uniform(-JITTER, JITTER)  # noqa: E731
    return Placement(background, cx + jitter(), cy + jitter(), radius * rng.uniform(0.95, 1.05))


def glyph_caption(word: str, place: str, background: str) -> str:
    """The wording of training and evaluation captions."""
    where = {"center": "in the center", "left": "on the left", "right": "on the right", "top": "at the top"}
    return f"a {word} {where.get(place, 'at the bottom')} on a {background} background"


def stamp(sprite: Tensor, x: float, y: float, radius: float, size: int = SIZE) -> Tensor:
    """A sprite's masks at a position, (2, size, size), anti-aliased by averaging 3×3 samples a pixel."""
    fine = 3
    gx, gy = pixel_grid(size * fine)
    grid = torch.stack([(gx - x) / radius, (gy - y) / radius], -1)
    sampled = F.grid_sample(sprite[None], grid[None], mode="bilinear", padding_mode="zeros", align_corners=False)
    return F.avg_pool2d(sampled, fine)[0]


def render_glyph(glyph: Glyph, placements: list[Placement], size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Images (B, 3, size, size) in [-1, 1] and body and accent masks (B, 2, size, size)."""
    sprite, colours = glyph.sprite(), glyph.colours()
    masks = torch.stack([stamp(sprite, p.x, p.y, p.radius, size) for p in placements])
    ground = draw_background([p.background for p in placements], size)
    painted = torch.einsum("bkhw,kc->bchw", masks, colours)
    images = ground * (1 - masks.sum(1, keepdim=True)) + painted
    return images * 2 - 1, masks


def random_glyph(rng: random.Random) -> Glyph:
    """A random symmetric two-tone creature in random colours; for training the reader and the codec."""
    half = [[rng.choices(".AB", weights=(4, 5, 3))[0] for _ in range(_SPRITE_CELLS // 2)] for _ in range(_SPRITE_CELLS)]
    rows = tuple("".join(row + row[::-1]) for row in half)
    colour = lambda: (rng.random(), rng.random(), rng.random())  # noqa: E731
    return Glyph("random", rows, colour(), colour())


def random_placement(rng: random.Random) -> tuple[Placement, str]:
    """A placement and the name of its place."""
    place = rng.choice(tuple(PLACES))
    return place_glyph(place, rng.choice(tuple(BACKGROUNDS)), rng, rng.uniform(0.32, 0.48)), place


def hatch_wave(size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the hatching's phase at each pixel, both (size, size)."""
    axis = torch.arange(size, dtype=torch.float32)
    phase = (axis[:, None] + axis[None, :]) * (2 * math.pi / HATCH_PERIOD)
    return phase.cos(), phase.sin()


def apply_hatch_style(images: Tensor, masks: Tensor) -> Tensor:
    """Draw scenes in the hatched style: diagonal hatching on the ground, a dark outline around objects.

    images (B, 3, h, w) in [-1, 1], masks (B, 1, h, w) of all objects → (B, 3, h, w).
    """
    lines = (0.5 + hatch_wave(images.shape[-1])[0] * 0.9).clamp(0, 1)
    grown = F.max_pool2d(masks, 5, stride=1, padding=2)
    outline = (grown - masks).clamp(0, 1)
    hatched = images + (1 - images) * HATCH_DEPTH * lines - (images + 1) * HATCH_DEPTH * (1 - lines)
    ground = images * masks + hatched * (1 - masks)
    return ground * (1 - outline) + outline * (-0.9)


def render_styled(scenes: list[Scene], seed: int) -> Tensor:
    """Scenes in the hatched style, (B, 3, 64, 64) in [-1, 1]."""
    images, masks = render(scenes, seed)
    return apply_hatch_style(images, masks.amax(1, keepdim=True))
