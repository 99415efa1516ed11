"""Scenes for training, as numbers on the training's device; pictures are drawn from them batch by batch."""

from __future__ import annotations

import multiprocessing
import random
from typing import NamedTuple

import torch
from torch import Tensor

from ...demo_model.compositor import Atlas, Rows, rows_of
from ...demo_model.scene import JITTER, caption, random_scene
from ...demo_model.vocabulary import tokenize

_CHUNK = 4096


class Pool(NamedTuple):
    """`rows` of all scenes, and their captions as ids (N, CONTEXT_LENGTH)."""

    rows: Rows
    ids: Tensor

    def draw(self, atlas: Atlas, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures (B, 3, 96, 96) of the scenes at `index`, moved a little anew, the drawings' masks (B, 2, 96, 96) and the captions' ids."""
        rows = self.rows.at(index)
        moved = rows.centre + (torch.rand_like(rows.centre[:, :, :1]) - 0.5) * JITTER
        return *atlas.draw(rows._replace(centre=moved)), self.ids[index]


def _chunk(seed: int) -> tuple[Rows, Tensor]:
    rng = random.Random(seed)
    scenes = [random_scene(rng) for _ in range(_CHUNK)]
    return rows_of(scenes, seed), torch.tensor([tokenize(caption(scene, rng)) for scene in scenes])


def make_pool(scenes: int, device: torch.device | str, seed: int = 0, processes: int = 1) -> Pool:
    """At least `scenes` scenes; the same for one seed, whatever the number of processes."""
    seeds = [seed + i for i in range(-(-scenes // _CHUNK))]
    if processes > 1:
        with multiprocessing.get_context("spawn").Pool(processes) as workers:
            parts = workers.map(_chunk, seeds)
    else:
        parts = [_chunk(s) for s in seeds]
    rows = Rows(*(torch.cat(column) for column in zip(*(part[0] for part in parts), strict=True)))
    return Pool(rows.to(device), torch.cat([part[1] for part in parts]).to(device))
