"""One fixed set of prompts and noise for all methods: fidelity, prompt fidelity, drift."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..demo_model.attributes import half
from ..demo_model.concepts import DRAWING_OF, Prompt
from ..demo_model.pipeline import DemoPipeline, load_reader, make_noise
from ..demo_model.scene import GROUNDS, PLACES, plain_caption, random_scene
from ..demo_model.sheets import NAMES
from .concept import ConceptMeter

STEPS = 12
DRIFT_PROMPTS = 36


@dataclass(frozen=True)
class Score:
    """Means over the suite's pictures."""

    concept_fidelity: float
    prompt_fidelity: float  # share of what the prompts ask for that is there
    drift: float  # RMSE to the base's picture of the same noise, other prompts, in pixel standard deviations
    flipped: float  # share of attributes that the reader reads otherwise on those

    def to_dict(self) -> dict[str, float]:
        return {k: round(v, 4) for k, v in self.__dict__.items()}


class Suite:
    """Holds the base's pictures, so that each method costs its own only."""

    def __init__(
        self, pipeline: DemoPipeline, word: str, seed: int = 500, steps: int = STEPS, others: int = DRIFT_PROMPTS, grounds: Sequence[str] = tuple(GROUNDS)
    ) -> None:
        """`word`: a concept's, asked for at each place on each of the `grounds`. `others`: how many prompts without it the drift is measured on."""
        self.pipeline, self.word, self.steps = pipeline, word, steps
        self.meter, self.reader = ConceptMeter(word), load_reader()
        self.prompts = [Prompt(word, place, ground) for place in PLACES for ground in grounds]
        self.noise = make_noise(len(self.prompts), seed)
        rng = random.Random(seed)
        self.others = [plain_caption(random_scene(rng, two=0)) for _ in range(others)]
        self.other_noise = make_noise(others, seed + 1)
        self.base_others = self.generate(self.others, self.other_noise)
        self.base_attributes = self.reader.read(self.base_others)

    def generate(self, captions: list[str], noise: Tensor) -> Tensor:
        return self.pipeline.generate(captions, noise=noise, steps=self.steps)

    def concept(self, prompts: Sequence[Prompt] | None = None, noise: Tensor | None = None) -> tuple[float, float, Tensor]:
        """(concept fidelity, prompt fidelity, pictures) of whatever is attached to the pipeline now."""
        chosen = self.prompts if prompts is None else prompts
        images = self.generate([p.caption for p in chosen], self.noise[: len(chosen)] if noise is None else noise)
        followed = self.followed(images, chosen)
        return float(self.fidelity(images, chosen).mean()), sum(followed) / len(followed), images

    def fidelity(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """How much of the concept is in each picture, (B,)."""
        return self.meter.read(images, prompts).fidelity

    @torch.no_grad()
    def subject_probability(self, images: Tensor) -> Tensor:
        """How sure the reader is of the concept's drawing, in whatever style, (B,) from 0 to 1."""
        return self.reader(images.float())["subject"].softmax(1)[:, NAMES.index(DRAWING_OF[self.word])]

    def followed(self, images: Tensor, prompts: Sequence[Prompt]) -> list[float]:
        """By picture: the share of what the prompt asks for beside the concept that is there."""
        apart = torch.stack([half(image[None], p.place)[0] if p.second else image for image, p in zip(images, prompts, strict=True)])
        places, seen, shares = self.meter.read(images, prompts).places, self.reader.read(apart), []
        for image, place, row, prompt in zip(images, places, seen, prompts, strict=True):
            hits = [place == prompt.place, row["ground"] == prompt.ground, row["pattern"] == prompt.pattern, row["size"] == prompt.size]
            hits += [row["style"] == prompt.style] if prompt.style else []
            if prompt.second:
                hits.append(self.reader.read(half(image[None], prompt.second.place))[0]["subject"] == prompt.second.subject)
            shares.append(sum(hits) / len(hits))
        return shares

    def drift(self) -> tuple[float, float]:
        """(drift, share of flipped attributes) of whatever is attached now."""
        images = self.generate(self.others, self.other_noise)
        rmse = (images - self.base_others).square().mean().sqrt() / self.base_others.std()
        seen = self.reader.read(images)
        flips = [seen[i][name] != self.base_attributes[i][name] for i in range(len(seen)) for name in seen[i]]
        return float(rmse), sum(flips) / len(flips)

    def score(self) -> Score:
        fidelity, prompt, _ = self.concept()
        return Score(fidelity, prompt, *self.drift())


def spearman(xs: list[float], ys: list[float]) -> float:
    """Rank correlation; ties get their mean rank."""

    def ranks(values: list[float]) -> Tensor:
        v = torch.tensor(values, dtype=torch.float64)
        return (v[:, None] > v[None, :]).double().sum(1) + ((v[:, None] == v[None, :]).double().sum(1) - 1) / 2

    a, b = ranks(xs), ranks(ys)
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-12))
