"""What the base draws, told by the reader: seen and held-out scenes, one drawing and two."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ...demo_model.attributes import accuracy, half, labels_of
from ...demo_model.codec import PatchCodec
from ...demo_model.compositor import Atlas, rows_of
from ...demo_model.pipeline import DEFAULT_STEPS, DemoPipeline, make_noise
from ...demo_model.reader import AttributeReader
from ...demo_model.scene import (
    GROUNDS,
    PATTERNS,
    PLACES,
    SIZES,
    Scene,
    Sticker,
    held_out_pair,
    held_out_style,
    plain_caption,
    random_scene,
)
from ...demo_model.sheets import recut_index
from ...demo_model.subjects import SEEN_STYLES, SUBJECTS
from .parts import load_base

BATCH = 128
JITTERS = 4


def prompts(kind: str, count: int, seed: int = 0) -> list[Scene]:
    """Scenes of one kind: `seen`, `held_out_style`, `two`, `two_held_out`."""
    rng = random.Random(f"{kind} {seed}")
    scenes: list[Scene] = []
    hidden = [(subject, style) for subject in SUBJECTS if (style := held_out_style(subject))]
    while len(scenes) < count:
        if kind == "held_out_style":
            subject, style = rng.choice(hidden)
            scenes.append(Scene((Sticker(subject, style, rng.choice(tuple(SIZES)), rng.choice(tuple(PLACES))),), rng.choice(tuple(GROUNDS)), rng.choice(PATTERNS)))
            continue
        scene = random_scene(rng, two=float(kind != "seen"))
        if kind == "two_held_out":
            second = rng.choice([s for s in SUBJECTS if held_out_pair(scene.stickers[0].subject, s)])
            other = scene.stickers[1]
            style = next(one for one in (other.style, *SEEN_STYLES) if one != held_out_style(second))
            scene = Scene((scene.stickers[0], Sticker(second, style, other.size, other.place)), scene.ground, scene.pattern)
        scenes.append(scene)
    return scenes


@torch.no_grad()
def check(sampler: DemoPipeline, reader: AttributeReader, scenes: list[Scene], seed: int = 0) -> tuple[dict[str, float], Tensor]:
    """Accuracy by attribute, and the pictures (B, 3, 96, 96). For two drawings, `both` is the share with both subjects right."""
    noise = make_noise(len(scenes), seed)
    pictures = torch.cat(
        [
            sampler.generate([plain_caption(s) for s in scenes[i : i + BATCH]], noise=noise[i : i + BATCH], steps=DEFAULT_STEPS).float()
            for i in range(0, len(scenes), BATCH)
        ]
    )
    slots = len(scenes[0].stickers)
    right, found = [], []
    for slot in range(slots):
        stickers = [scene.stickers[slot] for scene in scenes]
        labels = labels_of([(s.subject, s.style, s.size, s.place) for s in stickers], [(s.ground, s.pattern) for s in scenes], pictures.device)
        shown = pictures if slots == 1 else torch.stack([half(picture[None], s.place)[0] for picture, s in zip(pictures, stickers, strict=True)])
        logits = reader(shown)
        right.append(logits["subject"].argmax(1) == labels["subject"])
        found.append(accuracy(logits, labels))
    means = {name: sum(f[name] for f in found) / slots for name in found[0]}
    return (means if slots == 1 else means | {"both": float(torch.stack(right).all(0).float().mean())}), pictures


@torch.no_grad()
def nearest_cut(pictures: Tensor, scenes: list[Scene], reader: AttributeReader, atlas: Atlas) -> float:
    """Of each picture (B, 3, 96, 96) of one drawing the nearest render of its scene, by the cosine of the reader's features: either set's
    drawing of the subject in either style's cut, at several jitters; `atlas` holds recut drawings. Returns the share whose cut is the style that
    was asked for: of a subject that the base saw in one style only, a copy has the other's. Features rather than pixels are our choice: an
    edge that lies a pixel off counts against itself in pixels."""
    drawn = F.normalize(reader.features(pictures), dim=1)
    found = []
    for cut in SEEN_STYLES:
        cast = [replace(scene, stickers=(replace(scene.stickers[0], style=cut),)) for scene in scenes]
        likeness = []
        for seed, recut in product(range(JITTERS), (False, True)):
            rows = rows_of(cast, seed)
            if recut:
                rows.sprite[:, 0] = torch.tensor([recut_index(scene.stickers[0].subject, cut) for scene in scenes])
            renders = atlas.draw(rows.to(pictures.device))[0]
            likeness.append((F.normalize(reader.features(renders), dim=1) * drawn).sum(1))
        found.append(torch.stack(likeness).amax(0))
    asked = torch.tensor([SEEN_STYLES.index(scene.stickers[0].style) for scene in scenes], device=pictures.device)
    return float((torch.stack(found).argmax(0) == asked).float().mean())


def contact_sheet(pictures: Tensor, columns: int, path: Path) -> None:
    """Pictures (B, 3, h, w) in [-1, 1] at twice their size."""
    tiles = ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu()
    tiles = F.pad(tiles, (0, 0) * 3 + (0, -len(tiles) % columns))  # black where the last row is not full
    sheet = Image.fromarray(torch.cat([torch.cat(list(row), 1) for row in tiles.split(columns)]).numpy())
    sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.LANCZOS).save(path)


def check_base(work: Path, codec: PatchCodec, reader: AttributeReader, atlas: Atlas, device: torch.device, count: int) -> dict[str, dict[str, float]]:
    """All kinds of scenes, `count` pictures of each; writes a contact sheet of each into `work`."""
    model = load_base(work, device)
    sampler = DemoPipeline(model[0], codec.to(device), model[1])
    report = {}
    for kind in ("seen", "held_out_style", "two", "two_held_out"):
        scenes = prompts(kind, count)
        found, pictures = check(sampler, reader, scenes)
        report[kind] = {"pictures": count, **found}
        if len(scenes[0].stickers) == 1:
            report[kind]["cut"] = nearest_cut(pictures, scenes, reader, atlas)
        contact_sheet(pictures[:64], 8, work / f"{kind}.png")
    return report
