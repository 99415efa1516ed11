"""How much of a two-tone creature is in a picture, and where: soft intersection over union after alignment.

1.0 is what the renderer's own pictures reach; 0 is a picture without the creature's colours.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..demo_model.glyphs import Glyph, hatch_wave, place_glyph, render_glyph, render_styled, stamp
from ..demo_model.scenes import BACKGROUNDS, PLACES, SIZE, random_scene

# How far a colour may be off (RGB in [0, 1]) before it counts for e^(−1/2) of a match.
COLOUR_TOLERANCE = 0.12
RADII = (0.36, 0.40, 0.44, 0.48)


@dataclass(frozen=True)
class ConceptReading:
    """One number a picture: fidelity (B,), and the creature's place by name."""

    fidelity: Tensor
    places: list[str]


class ConceptMeter:
    """Finds one glyph in pictures (B, 3, 64, 64) in [-1, 1]."""

    def __init__(self, glyph: Glyph) -> None:
        self.glyph = glyph
        self.templates = torch.stack([stamp(glyph.sprite(), 0.0, 0.0, radius) for radius in RADII])  # (R, 2, h, w)
        rng = random.Random(17)
        spots = [(place, ground) for place in PLACES for ground in BACKGROUNDS]
        renders, _ = render_glyph(glyph, [place_glyph(place, ground, rng) for place, ground in spots])
        self._ceiling = float(self._aligned(renders)[0].mean())

    def _labels(self, images: Tensor) -> Tensor:
        """How much each pixel has the body's and the accent's colour, (B, 2, h, w) in [0, 1]."""
        pixels = (images.float() + 1) / 2
        distance = (pixels[:, None] - self.glyph.colours()[None, :, :, None, None]).square().sum(2)
        return torch.exp(-0.5 * distance / COLOUR_TOLERANCE**2)

    def read(self, images: Tensor) -> ConceptReading:
        """Fidelity and place of the best alignment over positions and sizes."""
        overlap, shifts = self._aligned(images)
        return ConceptReading((overlap / self._ceiling).clamp(max=1.0), [self._place(shift) for shift in shifts.tolist()])

    @torch.no_grad()
    def _aligned(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Soft intersection over union of the best alignment (B,), and the index of its shift (B,)."""
        labels = self._labels(images)
        total = labels.sum((1, 2, 3))
        best = torch.zeros(len(images))
        where = torch.zeros(len(images), dtype=torch.long)
        spectrum = torch.fft.rfft2(labels, s=(2 * SIZE, 2 * SIZE))
        for template in self.templates:
            # Correlation at every shift at once; a shift of (dy, dx) is at index (dy, dx) modulo 2·SIZE.
            kernel = torch.fft.rfft2(template, s=(2 * SIZE, 2 * SIZE)).conj()
            shared = torch.fft.irfft2((spectrum * kernel).sum(1), s=(2 * SIZE, 2 * SIZE))
            union = total[:, None, None] + template.sum() - shared
            score = (shared / union.clamp(min=1e-6)).flatten(1)
            value, index = score.max(1)
            better = value > best
            best = torch.where(better, value, best)
            where = torch.where(better, index, where)
        return best, where

    def _place(self, index: int) -> str:
        dy, dx = divmod(index, 2 * SIZE)
        dy, dx = (dy if dy < SIZE else dy - 2 * SIZE), (dx if dx < SIZE else dx - 2 * SIZE)
        x, y = dx * 2 / SIZE, dy * 2 / SIZE
        return min(PLACES, key=lambda name: (PLACES[name][0] - x) ** 2 + (PLACES[name][1] - y) ** 2)


def hatch_strength(images: Tensor) -> Tensor:
    """How much of the hatched style is in pictures, (B,): 1 is the renderer's own hatching, 0 none."""
    cosine, sine = hatch_wave(images.shape[-1])

    def amplitude(pictures: Tensor) -> Tensor:
        grey = pictures.float().mean(1)
        # Object edges and the ground's ramp are slow beside the hatching.
        grey = grey - F.avg_pool2d(grey[:, None], 9, stride=1, padding=4, count_include_pad=False)[:, 0]
        return ((grey * cosine).mean((1, 2)) ** 2 + (grey * sine).mean((1, 2)) ** 2).sqrt()

    rng = random.Random(23)
    reference = amplitude(render_styled([random_scene(rng, two_objects=0) for _ in range(32)], 23)).mean()
    return (amplitude(images) / reference).clamp(max=1.0)
