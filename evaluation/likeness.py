"""A learned embedding's view of a concept's pictures: how near they come to the renderer's own, and how unlike each other they are.

The embedding is the attribute reader's last features, which were trained to tell all drawings apart, concepts too;
as the features of all pictures of this world are much alike, their mean over the base's plain pictures is taken off first (our own choice).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..demo_model.concepts import Prompt, render
from ..demo_model.pipeline import make_noise
from .suite import Suite

VARIANTS = 6  # pictures of one prompt, with other noise
VARIED = 6  # every sixth prompt


@dataclass(frozen=True)
class Likeness:
    """Means over pictures, or over pairs of pictures of the same prompt."""

    cosine: float  # −1 to 1, between a picture and the renderer's of the same place and background
    diversity: float  # 0 to 2, 1 − cosine of a pair

    def to_dict(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in self.__dict__.items()}


class LikenessMeter:
    """On a suite's prompts, with noise of its own. Made while nothing is attached: the bare base is read first."""

    def __init__(self, suite: Suite, seed: int) -> None:
        self.suite, self.varied = suite, suite.prompts[::VARIED]
        self.repeated = [prompt for prompt in self.varied for _ in range(VARIANTS)]
        self.noise = make_noise(len(suite.prompts), seed)
        self.varied_noise = make_noise(len(self.repeated), seed + 1)
        self._mean = suite.reader.features(suite.base_others).mean(0)
        self._wanted = self._embedded(self.drawn(suite.prompts, seed))
        # What is best, and what the base makes of a word that it doesn't know.
        self.rendered = self.of(self.drawn(suite.prompts, seed + 2), self.drawn(self.repeated, seed + 3))
        self.base = self.read()

    def read(self) -> Likeness:
        """Of whatever is attached to the pipeline now."""
        pictures = self.suite.generate([p.caption for p in self.suite.prompts], self.noise)
        return self.of(pictures, self.suite.generate([p.caption for p in self.repeated], self.varied_noise))

    def of(self, pictures: Tensor, variants: Tensor) -> Likeness:
        """Of one picture a prompt of the suite, and of one a prompt of `repeated`."""
        near = (self._embedded(pictures) * self._wanted).sum(1)
        groups = self._embedded(variants).view(len(self.varied), VARIANTS, -1)
        pairs = torch.ones(VARIANTS, VARIANTS, dtype=torch.bool).triu(1)
        unlike = 1 - (groups @ groups.transpose(1, 2))[:, pairs]
        return Likeness(float(near.mean()), float(unlike.mean()))

    def drawn(self, prompts: list[Prompt], seed: int) -> Tensor:
        """The renderer's pictures of prompts."""
        return render([prompt.scene for prompt in prompts], seed)[0]

    @torch.no_grad()
    def _embedded(self, images: Tensor) -> Tensor:
        return F.normalize(self.suite.reader.features(images.float()) - self._mean, dim=1)
