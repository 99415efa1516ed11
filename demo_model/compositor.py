"""Draws scenes in batches: grounds, drawings at their places, and the exact mask of each drawing.

All on the device of `Atlas`; what a batch holds is known as numbers (`Rows`) before anything is drawn.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .scene import GROUNDS, PATTERNS, SIZE, SIZES, Scene, centre
from .sheets import recut_sprites, sprite_index, sprites

_PERIOD = 16.0  # pixels from stripe to stripe, and from dot to dot
_DOT = 3.2  # a dot's radius in pixels


class Rows(NamedTuple):
    """Scenes as numbers. A drawing that is not there has size −1."""

    sprite: Tensor  # (B, 2) row of `sprites`, or behind them of `recut_sprites`
    size: Tensor  # (B, 2) index into SIZES
    centre: Tensor  # (B, 2, 2) x and y in pixels from the picture's centre, without jitter or with
    ground: Tensor  # (B) index of ground × pattern

    def at(self, index: Tensor) -> Rows:
        return Rows(*(part[index] for part in self))

    def to(self, device: torch.device | str) -> Rows:
        return Rows(*(part.to(device) for part in self))


def rows_of(scenes: list[Scene], seed: int) -> Rows:
    """Scenes as numbers, with the jitter that `seed` gives."""
    rng = random.Random(seed)
    sizes, grounds = list(SIZES), list(GROUNDS)
    sprite, size, place = [], [], []
    for scene in scenes:
        row = [(sprite_index(s.subject, s.style), sizes.index(s.size), centre(s, rng)) for s in scene.stickers]
        row += [(0, -1, (0.0, 0.0))] * (2 - len(row))
        sprite.append([r[0] for r in row])
        size.append([r[1] for r in row])
        place.append([r[2] for r in row])
    ground = [grounds.index(s.ground) * len(PATTERNS) + PATTERNS.index(s.pattern) for s in scenes]
    return Rows(torch.tensor(sprite), torch.tensor(size), torch.tensor(place), torch.tensor(ground))


def draw_grounds() -> Tensor:
    """Every ground in every pattern, (grounds · patterns, 3, SIZE, SIZE) in [0, 1]."""
    axis = torch.arange(SIZE) + 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    # Distances to the edge in pixels become coverage, so edges are smooth.
    across = ((x + y) / 2**0.5) % _PERIOD
    stripes = (_PERIOD / 4 - (across - _PERIOD / 2).abs() + 0.5).clamp(0, 1)
    row = (y / _PERIOD).floor()
    u, v = (x + (row % 2) * _PERIOD / 2) % _PERIOD - _PERIOD / 2, y % _PERIOD - _PERIOD / 2
    dots = (_DOT - (u * u + v * v).sqrt() + 0.5).clamp(0, 1)
    covers = {"plain": torch.zeros(SIZE, SIZE), "striped": stripes, "dotted": dots}
    made = []
    for first, second in GROUNDS.values():
        a, b = torch.tensor(first).view(3, 1, 1), torch.tensor(second).view(3, 1, 1)
        made += [a + (b - a) * covers[pattern] for pattern in PATTERNS]
    return torch.stack(made)


class Atlas:
    """The drawings in the world's three sizes and the grounds, on one device; with `recut`, the rows of `recut_sprites` behind them."""

    def __init__(self, device: torch.device | str = "cpu", recut: bool = False) -> None:
        self.drawings = [(torch.cat([sprites(pixels), recut_sprites(pixels)]) if recut else sprites(pixels)).to(device) for pixels in SIZES.values()]
        self.grounds = draw_grounds().to(device)

    def draw(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, 96, 96) in [-1, 1] and the drawings' masks (B, 2, 96, 96) in [0, 1]."""
        images = self.grounds[rows.ground].clone()
        masks = images.new_zeros(len(images), 2, SIZE, SIZE)
        for slot in range(2):
            for index, drawings in enumerate(self.drawings):
                at = (rows.size[:, slot] == index).nonzero().flatten()
                if not len(at):
                    continue
                layer = self._placed(drawings[rows.sprite[at, slot]], rows.centre[at, slot])
                images[at] = images[at] * (1 - layer[:, 3:]) + layer[:, :3]
                masks[at, slot] = layer[:, 3]
        return images * 2 - 1, masks

    def _placed(self, drawings: Tensor, centres: Tensor) -> Tensor:
        """Drawings (B, 4, s, s) on an empty picture, their centres at (B, 2) pixels: (B, 4, 96, 96)."""
        scale = SIZE / drawings.shape[-1]
        theta = centres.new_zeros(len(centres), 2, 3)
        theta[:, 0, 0] = theta[:, 1, 1] = scale
        theta[:, :, 2] = -centres * 2 / drawings.shape[-1]
        grid = F.affine_grid(theta, [len(drawings), 4, SIZE, SIZE], align_corners=False)
        return F.grid_sample(drawings, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
