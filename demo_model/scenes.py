"""The base model's world: scenes of one or two shapes, drawn in batches with exact masks.

Signed distances with analytic anti-aliasing; no randomness of its own beyond the generator handed in.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor

SIZE = 64
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
SIZES = {"small": 0.30, "large": 0.46}
PLACES = {"center": (0.0, 0.0), "left": (-0.42, 0.0), "right": (0.42, 0.0), "top": (0.0, -0.42), "bottom": (0.0, 0.42)}
TEXTURES = ("plain", "striped", "dotted")
COLOURS = {
    "red": (0.88, 0.15, 0.15),
    "orange": (0.97, 0.55, 0.12),
    "yellow": (0.98, 0.87, 0.18),
    "green": (0.22, 0.74, 0.28),
    "blue": (0.15, 0.38, 0.92),
    "purple": (0.55, 0.24, 0.78),
    "pink": (0.98, 0.56, 0.77),
    "white": (0.97, 0.97, 0.97),
}
# Each background runs from its first colour (top) to its second (bottom).
BACKGROUNDS = {
    "night": ((0.05, 0.07, 0.18), (0.13, 0.16, 0.34)),
    "sand": ((0.89, 0.80, 0.62), (0.80, 0.69, 0.50)),
    "forest": ((0.06, 0.25, 0.18), (0.13, 0.36, 0.24)),
    "sky": ((0.60, 0.80, 0.94), (0.76, 0.90, 0.98)),
    "stone": ((0.42, 0.44, 0.48), (0.55, 0.56, 0.60)),
    "clay": ((0.46, 0.25, 0.18), (0.58, 0.34, 0.25)),
}
HELD_OUT_PAIRS = frozenset(
    {("star", "blue"), ("ring", "red"), ("circle", "purple"), ("cross", "yellow"), ("square", "pink"), ("triangle", "green")}
)
TWO_OBJECT_SCALE = 0.82
JITTER = 0.04


@dataclass(frozen=True)
class SceneObject:
    """One object; every field is a word of the vocabulary."""

    shape: str
    colour: str
    size: str
    place: str
    texture: str = "plain"


@dataclass(frozen=True)
class Scene:
    """One or two objects on a background."""

    objects: tuple[SceneObject, ...]
    background: str


def random_scene(rng: random.Random, two_objects: float = 0.25, held_out: bool = False) -> Scene:
    """Draw a scene. ``held_out`` draws only pairs of shape and colour that the base never saw; else only seen ones."""
    count = 2 if rng.random() < two_objects else 1
    places = rng.choice((("left", "right"), ("top", "bottom"))) if count == 2 else (rng.choice(tuple(PLACES)),)
    objects = []
    for place in places:
        while True:
            shape, colour = rng.choice(SHAPES), rng.choice(tuple(COLOURS))
            if ((shape, colour) in HELD_OUT_PAIRS) == held_out:
                break
        texture = rng.choices(TEXTURES, weights=(3, 1, 1))[0]
        objects.append(SceneObject(shape, colour, rng.choice(tuple(SIZES)), place, texture))
    return Scene(tuple(objects), rng.choice(tuple(BACKGROUNDS)))


def pixel_grid(size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Pixel centres in [-1, 1]; x grows to the right, y downwards. Both (size, size)."""
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


def _polygon_distance(x: Tensor, y: Tensor, corners: list[tuple[float, float]]) -> Tensor:
    """Signed distance to a simple polygon, negative inside. x, y (..., h, w)."""
    best = torch.full_like(x, float("inf"))
    inside = torch.zeros_like(x, dtype=torch.bool)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        ex, ey = bx - ax, by - ay
        px, py = x - ax, y - ay
        along = ((px * ex + py * ey) / (ex * ex + ey * ey)).clamp(0, 1)
        best = torch.minimum(best, (px - ex * along) ** 2 + (py - ey * along) ** 2)
        if ay != by:
            crosses = ((ay > y) != (by > y)) & (x < ex * (y - ay) / ey + ax)
            inside ^= crosses
    return torch.where(inside, -best.sqrt(), best.sqrt())


def _star_corners() -> list[tuple[float, float]]:
    radii = (1.08, 0.47)
    return [
        (radii[i % 2] * math.sin(i * math.pi / 5), -radii[i % 2] * math.cos(i * math.pi / 5) + 0.06) for i in range(10)
    ]


_CROSS = 0.34
_CORNERS = {
    "square": [(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)],
    "triangle": [(0.0, -0.95), (1.0, 0.80), (-1.0, 0.80)],
    "star": _star_corners(),
    "cross": [
        (-_CROSS, -1.0), (_CROSS, -1.0), (_CROSS, -_CROSS), (1.0, -_CROSS), (1.0, _CROSS), (_CROSS, _CROSS),
        (_CROSS, 1.0), (-_CROSS, 1.0), (-_CROSS, _CROSS), (-1.0, _CROSS), (-1.0, -_CROSS), (-_CROSS, -_CROSS),
    ],
}  # fmt: skip


def shape_distance(shape: str, x: Tensor, y: Tensor) -> Tensor:
    """Signed distance to a shape of radius about 1 around the origin, negative inside."""
    if shape == "circle":
        return (x * x + y * y).sqrt() - 0.95
    if shape == "ring":
        return ((x * x + y * y).sqrt() - 0.70).abs() - 0.27
    return _polygon_distance(x, y, _CORNERS[shape])


def coverage(distance: Tensor, pixel: float) -> Tensor:
    """Share of a pixel that a shape covers, from the signed distance at its centre; ``pixel`` is a pixel's width."""
    return (0.5 - distance / pixel).clamp(0, 1)


def _texture_shade(texture: str, x: Tensor, y: Tensor, pixel: float) -> Tensor:
    """Where the object's colour is darkened, in [0, 1]. Coordinates are in radii of the object."""
    if texture == "striped":
        wave = torch.sin((x + y) * 7.5)
        return (0.5 + wave / (7.5 * pixel * 1.5)).clamp(0, 1)
    if texture == "dotted":
        step = 0.56
        fx, fy = (x / step - (x / step).round()) * step, (y / step - (y / step).round()) * step
        return coverage((fx * fx + fy * fy).sqrt() - 0.17, pixel)
    return torch.zeros_like(x)


def draw_background(names: list[str], size: int = SIZE) -> Tensor:
    """(B, 3, size, size) in [0, 1]."""
    ramp = torch.linspace(0, 1, size).view(1, 1, size, 1)
    top = torch.tensor([BACKGROUNDS[name][0] for name in names]).view(-1, 3, 1, 1)
    bottom = torch.tensor([BACKGROUNDS[name][1] for name in names]).view(-1, 3, 1, 1)
    return (top + (bottom - top) * ramp).expand(-1, -1, -1, size).clone()


def object_geometry(scene: Scene, index: int, rng: random.Random) -> tuple[float, float, float]:
    """Centre x, centre y and radius of an object, with a little jitter."""
    item = scene.objects[index]
    cx, cy = PLACES[item.place]
    scale = TWO_OBJECT_SCALE if len(scene.objects) > 1 else 1.0
    radius = SIZES[item.size] * scale * rng.uniform(0.95, 1.05)
    return cx + rng.uniform(-JITTER, JITTER), cy + rng.uniform(-JITTER, JITTER), radius


def render(scenes: list[Scene], seed: int, size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Draw scenes: images (B, 3, size, size) in [-1, 1] and object masks (B, 2, size, size) in [0, 1]."""
    rng = random.Random(seed)
    images = draw_background([scene.background for scene in scenes], size)
    masks = torch.zeros(len(scenes), 2, size, size)
    x, y = pixel_grid(size)
    by_shape: dict[str, list[tuple[int, int, float, float, float]]] = {}
    for row, scene in enumerate(scenes):
        for index, item in enumerate(scene.objects):
            by_shape.setdefault(item.shape, []).append((row, index, *object_geometry(scene, index, rng)))
    for shape, entries in by_shape.items():
        rows = torch.tensor([e[0] for e in entries])
        which = torch.tensor([e[1] for e in entries])
        cx, cy, radius = (torch.tensor([e[k] for e in entries]).view(-1, 1, 1) for k in (2, 3, 4))
        u, v = (x - cx) / radius, (y - cy) / radius
        pixel = 2.0 / size / radius
        mask = (0.5 - shape_distance(shape, u, v) / pixel).clamp(0, 1)
        masks[rows, which] = mask
        colours = torch.tensor([COLOURS[scenes[e[0]].objects[e[1]].colour] for e in entries]).view(-1, 3, 1, 1)
        shade = torch.zeros_like(mask)
        for k, e in enumerate(entries):
            texture = scenes[e[0]].objects[e[1]].texture
            if texture != "plain":
                shade[k] = _texture_shade(texture, u[k], v[k], float(pixel[k]))
        painted = colours * (1 - 0.42 * shade[:, None])
        images[rows] = images[rows] * (1 - mask[:, None]) + painted * mask[:, None]
    return images * 2 - 1, masks


_PLACE_PHRASES = {
    "center": ("in the center", "in the middle", "at center"),
    "left": ("on the left", "at left", "left"),
    "right": ("on the right", "at right", "right"),
    "top": ("at the top", "at top", "top"),
    "bottom": ("at the bottom", "at bottom", "bottom"),
}
_SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}
_SHAPE_WORDS = {"circle": ("circle", "circle", "disc"), "square": ("square", "square", "box")}


def _noun_phrase(item: SceneObject, rng: random.Random, article: bool, drop: float) -> str:
    words = ["a"] if article else []
    if rng.random() >= drop:
        words.append(rng.choice(_SIZE_WORDS[item.size]))
    words.append(item.colour)
    if item.texture != "plain" or rng.random() < 0.15:
        words.append(item.texture)
    words.append(rng.choice(_SHAPE_WORDS.get(item.shape, (item.shape,))))
    return " ".join(words)


def caption(scene: Scene, rng: random.Random) -> str:
    """One of several wordings; size, place and background are sometimes left unsaid, at most 16 words."""
    ground = rng.choice((f"on a {scene.background} background", f"on {scene.background}", f"with {scene.background} background"))
    if len(scene.objects) == 2:
        first, second = scene.objects
        parts = [
            f"{_noun_phrase(first, rng, True, 0.4)} {first.place}",
            "and",
            f"{_noun_phrase(second, rng, True, 0.4)} {second.place}",
            f"on {scene.background}",
        ]
        return " ".join(parts)
    item = scene.objects[0]
    phrase = _noun_phrase(item, rng, rng.random() < 0.7, 0.35)
    place = rng.choice(_PLACE_PHRASES[item.place]) if rng.random() > 0.12 else ""
    ground = ground if rng.random() > 0.08 else ""
    order = rng.random()
    if order < 0.7:
        parts = [phrase, place, ground]
    elif order < 0.85:
        parts = [phrase, ground, place]
    else:
        parts = [f"{scene.background} background with" if ground else "", phrase, place]
    return " ".join(" ".join(parts).split())


def plain_caption(item: SceneObject, background: str) -> str:
    """The wording that evaluation uses: every attribute said."""
    texture = f"{item.texture} " if item.texture != "plain" else ""
    place = _PLACE_PHRASES[item.place][0]
    return f"a {item.size} {item.colour} {texture}{item.shape} {place} on a {background} background"
