"""What people teach the base: drawings that it never saw, under words that it never read, and a style that it never drew in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from torch import Tensor

from .compositor import Atlas, rows_of
from .scene import PLACE_PHRASES, Scene, Sticker, phrase

#: A concept's word, and the drawing that it stands for.
DRAWING_OF = {"zorp": "dragon", "quax": "rocket", "blick": "unicorn", "mib": "crown"}
CONCEPT_STYLE = "glossy"
#: A style's word, and the style that it stands for.
STYLE_WORD, STYLE = "fendo", "ink"


@dataclass(frozen=True)
class Prompt:
    """A concept in a scene: what its caption says. What is None, and a plain ground, is left unsaid."""

    word: str
    place: str
    ground: str
    size: str = "large"
    pattern: str = "plain"
    style: str | None = None  # of the base's own styles
    second: Sticker | None = None  # a subject beside it
    behind: str = ""  # words at the end, such as a style adapter's

    @property
    def caption(self) -> str:
        """As the base's own captions are worded."""
        drawing = " ".join(["a", self.size, *([self.style] if self.style else []), self.word, PLACE_PHRASES[self.place]])
        others = [phrase(self.second, PLACE_PHRASES[self.second.place])] if self.second else []
        ground = f"on a {self.ground} background" if self.pattern == "plain" else f"on a {self.pattern} {self.ground} background"
        return " ".join([" and ".join([drawing, *others]), ground, *([self.behind] if self.behind else [])])

    @property
    def short(self) -> str:
        """What it asks for beside the concept, for a label."""
        drawing = [*([] if self.size == "large" else [self.size]), *([self.style] if self.style else []), self.place]
        ground = self.ground if self.pattern == "plain" else f"{self.pattern} {self.ground}"
        return ", ".join([" ".join(drawing), *([f"a {self.second.subject} {self.second.place}"] if self.second else []), ground])

    @property
    def scene(self) -> Scene:
        """What a renderer draws for it; raises KeyError for a word without a drawing."""
        drawing = Sticker(DRAWING_OF[self.word], self.style or CONCEPT_STYLE, self.size, self.place)
        return Scene((drawing, self.second) if self.second else (drawing,), self.ground, self.pattern)


@cache
def _atlas() -> Atlas:
    return Atlas()


def render(scenes: Sequence[Scene], seed: int) -> tuple[Tensor, Tensor]:
    """Pictures (B, 3, 96, 96) in [-1, 1] and the drawings' masks (B, 2, 96, 96), with the places' jitter of `seed`."""
    return _atlas().draw(rows_of(list(scenes), seed))
