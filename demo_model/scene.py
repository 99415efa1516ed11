"""What a picture of the world of drawings is, and how it is said in words."""

from __future__ import annotations

import random
import zlib
from collections.abc import Collection
from dataclasses import dataclass

from .subjects import SEEN_STYLES, SUBJECTS

SIZE = 96  # pixels of a picture's side
SIZES = {"small": 28, "medium": 42, "large": 60}  # a drawing's side in pixels
PLACES = {"center": (0, 0), "left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}
PATTERNS = ("plain", "striped", "dotted")
GROUNDS = {  # RGB in [0, 1]: the ground, and what its stripes and dots are drawn in
    "night": ((0.10, 0.12, 0.27), (0.16, 0.20, 0.41)),
    "sand": ((0.93, 0.85, 0.67), (0.86, 0.75, 0.53)),
    "forest": ((0.11, 0.33, 0.25), (0.17, 0.44, 0.33)),
    "sky": ((0.62, 0.82, 0.95), (0.77, 0.91, 0.99)),
    "clay": ((0.66, 0.36, 0.27), (0.76, 0.47, 0.36)),
    "mint": ((0.70, 0.90, 0.78), (0.56, 0.82, 0.67)),
    "lilac": ((0.77, 0.70, 0.92), (0.67, 0.58, 0.86)),
    "snow": ((0.96, 0.96, 0.98), (0.86, 0.88, 0.93)),
}
MARGIN = 3  # pixels between a drawing at the edge and the edge, before the jitter
JITTER = 3  # pixels, either way
PLACE_PHRASES = {"center": "in the center", "left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"}


@dataclass(frozen=True)
class Sticker:
    """One drawing; every field is a word."""

    subject: str
    style: str
    size: str
    place: str


@dataclass(frozen=True)
class Scene:
    """One or two drawings on a ground; two lie left and right, or above each other, and are not large."""

    stickers: tuple[Sticker, ...]
    ground: str
    pattern: str = "plain"


def held_out_style(subject: str) -> str | None:
    """The one style that the base never saw this subject in; None for the eleven of twelve that it saw in both."""
    place = SUBJECTS.index(subject)
    return SEEN_STYLES[(place // 12) % 2] if place % 12 == 5 else None


def held_out_pair(first: str, second: str) -> bool:
    """Whether the base never saw these two subjects in one picture: a tenth of all pairs, by their names alone."""
    return zlib.crc32(" ".join(sorted((first, second))).encode()) % 10 == 0


#: Drawings in a style as the base is shown them by name; each is as likely, so that a subject of one style is not told by how often it comes.
SEEN_PAIRS = tuple((subject, style) for subject in SUBJECTS for style in SEEN_STYLES if style != held_out_style(subject))


def random_scene(rng: random.Random, two: float = 0.3) -> Scene:
    """A scene that the base may see in training."""

    def sticker(place: str, sizes: tuple[str, ...]) -> Sticker:
        return Sticker(*rng.choice(SEEN_PAIRS), rng.choice(sizes), place)

    ground, pattern = rng.choice(tuple(GROUNDS)), rng.choice(PATTERNS)
    if rng.random() >= two:
        return Scene((sticker(rng.choice(tuple(PLACES)), tuple(SIZES)),), ground, pattern)
    while True:
        places = rng.choice((("left", "right"), ("top", "bottom")))
        stickers = tuple(sticker(place, ("small", "medium")) for place in places)
        if not held_out_pair(stickers[0].subject, stickers[1].subject):
            return Scene(stickers, ground, pattern)


def centre(sticker: Sticker, rng: random.Random) -> tuple[float, float]:
    """Where a drawing's centre lies, in pixels from the picture's, with the jitter."""
    reach = (SIZE - SIZES[sticker.size]) / 2 - MARGIN
    x, y = PLACES[sticker.place]
    return x * reach + rng.uniform(-JITTER, JITTER), y * reach + rng.uniform(-JITTER, JITTER)


def phrase(sticker: Sticker, place: str) -> str:
    return f"a {sticker.size} {sticker.style} {sticker.subject} {place}"


def plain_caption(scene: Scene) -> str:
    """Everything that the scene is, at most 20 words: what evaluation asks for."""
    ground = f"on a {scene.ground} background" if scene.pattern == "plain" else f"on a {scene.pattern} {scene.ground} background"
    return " ".join([" and ".join(phrase(s, PLACE_PHRASES[s.place]) for s in scene.stickers), ground])


def caption(scene: Scene, rng: random.Random, unnamed: Collection[int] = ()) -> str:
    """One of several wordings. Style, size, place and ground are sometimes left unsaid, so that each word is learned alone.

    A drawing whose number is in `unnamed` is told by its style and not by its subject. A subject that the base sees in one style is always told
    with it: else its name would come to mean that style.
    """
    short = rng.random() < 0.3
    parts = []
    for number, sticker in enumerate(scene.stickers):
        words = ["a"] if rng.random() < 0.8 else []
        words += [sticker.size] if rng.random() < 0.75 else []
        told = rng.random() < 0.8 or number in unnamed or held_out_style(sticker.subject) is not None
        words += [sticker.style] if told else []
        words += [] if number in unnamed else [sticker.subject]
        if len(scene.stickers) == 2 or rng.random() < 0.85:
            words.append(sticker.place if short else PLACE_PHRASES[sticker.place])
        parts.append(" ".join(words))
    pattern = "" if scene.pattern == "plain" and rng.random() < 0.8 else f"{scene.pattern} "
    ground = f"on {pattern}{scene.ground}" if short else f"on a {pattern}{scene.ground} background"
    return " and ".join(parts) + (f" {ground}" if rng.random() < 0.93 else "")
