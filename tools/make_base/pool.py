"""Scenes for training, as numbers on the training's device; pictures are drawn from them batch by batch."""

from __future__ import annotations

import multiprocessing
import random
from typing import NamedTuple

import torch
from torch import Tensor

from ...demo_model.compositor import Atlas, Rows, rows_of
from ...demo_model.scene import JITTER, caption, held_out_style, random_scene
from ...demo_model.sheets import recut_index
from ...demo_model.vocabulary import tokenize

_CHUNK = 4096
# Drawings that are told by their style's word alone, half of them as the other set draws them: so the word means the cut, whatever it lies around.
# Our choice: without them the base drew a subject of one style in that style's cut, whichever was asked for.
UNNAMED, RECUT = 0.35, 0.5


class Pool(NamedTuple):
    """`rows` of all scenes, for an atlas with recut drawings, and their captions as ids (N, CONTEXT_LENGTH)."""

    rows: Rows
    ids: Tensor

    def draw(self, atlas: Atlas, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures (B, 3, 96, 96) of the scenes at `index`, moved a little anew, the drawings' masks (B, 2, 96, 96) and the captions' ids."""
        rows = self.rows.at(index)
        moved = rows.centre + (torch.rand_like(rows.centre) - 0.5) * JITTER
        return *atlas.draw(rows._replace(centre=moved)), self.ids[index]


def _chunk(seed: int) -> tuple[Rows, Tensor]:
    rng = random.Random(seed)
    scenes = [random_scene(rng) for _ in range(_CHUNK)]
    rows, captions = rows_of(scenes, seed), []
    for row, scene in enumerate(scenes):
        unnamed = [slot for slot in range(len(scene.stickers)) if rng.random() < UNNAMED]
        for slot in unnamed:
            sticker = scene.stickers[slot]
            # Of a subject with a style held out, nothing of that style is shown: neither its drawing nor its cut.
            if held_out_style(sticker.subject) is None and rng.random() < RECUT:
                rows.sprite[row, slot] = recut_index(sticker.subject, sticker.style)
        captions.append(tokenize(caption(scene, rng, unnamed)))
    return rows, torch.tensor(captions)


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
