"""The attribute reader: trained on renders and on the codec's output, never on the base's samples.

Atlases here hold recut drawings too.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from ...demo_model.attributes import ATTRIBUTES, accuracy, half, labels_of
from ...demo_model.codec import PatchCodec
from ...demo_model.compositor import Atlas, Rows, rows_of
from ...demo_model.reader import AttributeReader
from ...demo_model.scene import GROUNDS, PATTERNS, PLACES, SIZES, Scene, Sticker
from ...demo_model.sheets import NAMES, STYLE_NAMES, recut_index
from ...demo_model.subjects import SEEN_STYLES
from .parts import store

BATCH = 128
RATE = 3e-3
LATENT_NOISE = 0.25
_CHUNK = 4096
_PAIRS = (("left", "right"), ("right", "left"), ("top", "bottom"), ("bottom", "top"))


def any_scene(rng: random.Random) -> Scene:
    """Any drawing in any style, concepts and unseen styles too; half of the scenes hold two."""
    places = rng.choice(_PAIRS) if rng.random() < 0.5 else (rng.choice(tuple(PLACES)),)
    sizes = tuple(SIZES) if len(places) == 1 else ("small", "medium")
    stickers = tuple(Sticker(rng.choice(NAMES), rng.choice(STYLE_NAMES), rng.choice(sizes), place) for place in places)
    return Scene(stickers, rng.choice(tuple(GROUNDS)), rng.choice(PATTERNS))


def mixed_rows(scenes: list[Scene], seed: int) -> Rows:
    """Scenes as numbers; half of the drawings in a seen style are the other set's in that style's cut, so that a style is read by its cut."""
    rng, rows = random.Random(f"recut {seed}"), rows_of(scenes, seed)
    for row, scene in enumerate(scenes):
        for slot, sticker in enumerate(scene.stickers):
            if sticker.style in SEEN_STYLES and rng.random() < 0.5:
                rows.sprite[row, slot] = recut_index(sticker.subject, sticker.style)
    return rows


def read_apart(images: Tensor, scenes: list[Scene]) -> Tensor:
    """What the reader is shown: the whole picture, or the half with the first drawing where there are two."""
    shown = images.clone()
    for place, _ in _PAIRS:
        at = [i for i, scene in enumerate(scenes) if len(scene.stickers) == 2 and scene.stickers[0].place == place]
        if at:
            shown[at] = half(images[at], place)
    return shown


def labels_for(scenes: list[Scene], device: torch.device | str) -> dict[str, Tensor]:
    first = [scene.stickers[0] for scene in scenes]
    return labels_of([(s.subject, s.style, s.size, s.place) for s in first], [(s.ground, s.pattern) for s in scenes], device)


def disturbed(images: Tensor, codec: PatchCodec) -> Tensor:
    """Half of the pictures go through the codec with noisy latents, as the base's samples do."""
    half_of = len(images) // 2
    latents = codec.encode(images[:half_of])
    noise = torch.rand(half_of, 1, 1, 1, device=images.device) * LATENT_NOISE
    return torch.cat([codec.decode(latents + torch.randn_like(latents) * noise), images[half_of:]])


def train_reader(work: Path, codec: PatchCodec, atlas: Atlas, minutes: float, device: torch.device) -> dict[str, dict[str, float]]:
    """Train for `minutes` of wall time, from where an earlier call ended; returns its accuracy on fresh renders and on the same through the codec."""
    torch.manual_seed(2)
    rng = random.Random(5)
    begun = (work / "reader.safetensors").exists()
    reader = load_reader(work, device).train().requires_grad_(True) if begun else AttributeReader(ATTRIBUTES).to(device)
    optimiser = torch.optim.AdamW(reader.parameters(), lr=RATE, weight_decay=0.01)
    began, step = time.time(), 0
    scenes: list[Scene] = []
    while (done := (time.time() - began) / (60 * minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 100, (1 - done) / 0.6)
        at = (step * BATCH) % _CHUNK
        if at == 0:
            scenes = [any_scene(rng) for _ in range(_CHUNK)]
            rows, labels = mixed_rows(scenes, step).to(device), labels_for(scenes, device)
        index = torch.arange(at, at + BATCH, device=device)
        with torch.no_grad():
            shown = read_apart(disturbed(atlas.draw(rows.at(index))[0], codec), scenes[at : at + BATCH])
        logits = reader(shown)
        loss = sum(F.cross_entropy(logits[name], labels[name][index]) for name in ATTRIBUTES)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        step += 1
        if step % 200 == 0:
            print(f"reader: step {step}, loss {loss.item():.3f}", flush=True)
    store(reader.state_dict(), work / "reader.safetensors")
    return check_reader(reader.eval(), codec, atlas, device)


@torch.no_grad()
def check_reader(reader: AttributeReader, codec: PatchCodec, atlas: Atlas, device: torch.device, count: int = 2048) -> dict[str, dict[str, float]]:
    rng = random.Random(1234)
    scenes = [any_scene(rng) for _ in range(count)]
    rows, labels = mixed_rows(scenes, 99).to(device), labels_for(scenes, device)
    found: dict[str, dict[str, list[Tensor]]] = {"renders": {}, "codec": {}}
    for index in torch.arange(count, device=device).split(256):
        images = atlas.draw(rows.at(index))[0]
        for kind, pictures in (("renders", images), ("codec", codec.decode(codec.encode(images)))):
            for name, values in reader(read_apart(pictures, [scenes[i] for i in index.tolist()])).items():
                found[kind].setdefault(name, []).append(values)
    return {kind: accuracy({name: torch.cat(parts) for name, parts in by_name.items()}, labels) for kind, by_name in found.items()}


def load_reader(work: Path, device: torch.device | str = "cpu") -> AttributeReader:
    reader = AttributeReader(ATTRIBUTES)
    reader.load_state_dict(load_file(str(work / "reader.safetensors")))
    return reader.eval().requires_grad_(False).to(device)
