"""What the base draws, told by the reader: seen and held-out scenes, one drawing and two."""

from __future__ import annotations

import random
from itertools import product
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ...demo_model.attributes import accuracy, half, labels_of
from ...demo_model.codec import PatchCodec
from ...demo_model.finish import PAD, finished
from ...demo_model.pipeline import DemoPipeline, make_noise
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
from ...demo_model.sheets import NAMES, drawings
from ...demo_model.subjects import SEEN_STYLES, SUBJECTS
from .parts import load_base

STEPS = 24
BATCH = 128


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
            style = other.style if held_out_style(second) != other.style else scene.stickers[0].style
            scene = Scene((scene.stickers[0], Sticker(second, style, other.size, other.place)), scene.ground, scene.pattern)
        scenes.append(scene)
    return scenes


@torch.no_grad()
def check(sampler: DemoPipeline, reader: AttributeReader, scenes: list[Scene], seed: int = 0) -> tuple[dict[str, float], Tensor]:
    """Accuracy by attribute, and the pictures (B, 3, 96, 96). For two drawings, `both` is the share with both subjects right."""
    noise = make_noise(len(scenes), seed)
    pictures = torch.cat(
        [
            sampler.generate([plain_caption(s) for s in scenes[i : i + BATCH]], noise=noise[i : i + BATCH], steps=STEPS).float()
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
def nearest_cut(pictures: Tensor, scenes: list[Scene]) -> float:
    """Of each picture (B, 3, 96, 96) of one drawing the nearest render of its subject: either set's drawing in either style's cut, at any
    place on the picture's own ground. Returns the share whose cut is the style that was asked for: of a subject that the base saw in one
    style only, a copy has the other's."""
    renders = {
        (size, style, cut): finished(drawings(pixels, style), cut)
        for size, pixels in SIZES.items() for style in SEEN_STYLES for cut in SEEN_STYLES
    }  # fmt: skip
    right = 0
    for picture, scene in zip((pictures.cpu() + 1) / 2, scenes, strict=True):
        sticker = scene.stickers[0]
        ground = picture.flatten(1).median(1).values.view(3, 1, 1)  # a drawing covers less than half of a picture
        beyond = F.pad((picture.clamp(0, 1) - ground)[None], (PAD,) * 4, mode="replicate")
        gains = []
        for style, cut in product(SEEN_STYLES, SEEN_STYLES):
            drawn = renders[sticker.size, style, cut][NAMES.index(sticker.subject)]
            change = (drawn[:3] - drawn[3:] * ground)[None]  # to the bare ground
            # What the drawing takes off the squared error of the bare ground, where that is most.
            gains.append((float((2 * F.conv2d(beyond, change) - change.square().sum()).max()), cut))
        right += max(gains)[1] == sticker.style
    return right / len(scenes)


def contact_sheet(pictures: Tensor, columns: int, path: Path) -> None:
    """Pictures (B, 3, h, w) in [-1, 1] at twice their size."""
    tiles = ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu()
    rows = [torch.cat(list(tiles[i : i + columns]), 1) for i in range(0, len(tiles) - columns + 1, columns)]
    sheet = Image.fromarray(torch.cat(rows).numpy())
    sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.LANCZOS).save(path)


def check_base(work: Path, codec: PatchCodec, reader: AttributeReader, device: torch.device, count: int) -> dict[str, dict[str, float]]:
    """All kinds of scenes; writes a contact sheet of each into `work`."""
    model = load_base(work, device)
    sampler = DemoPipeline(model[0], codec.to(device), model[1])
    report = {}
    for kind in ("seen", "held_out_style", "two", "two_held_out"):
        scenes = prompts(kind, count)
        report[kind], pictures = check(sampler, reader, scenes)
        if len(scenes[0].stickers) == 1:
            report[kind]["cut"] = nearest_cut(pictures, scenes)
        contact_sheet(pictures[:64], 8, work / f"{kind}.png")
    return report
