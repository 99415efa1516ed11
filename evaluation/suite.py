"""One fixed set of prompts and noise for all methods: fidelity, prompt fidelity, drift."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from ..demo_model.glyphs import Glyph, glyph_caption
from ..demo_model.pipeline import DemoPipeline, load_reader, make_noise
from ..demo_model.scenes import BACKGROUNDS, PLACES, plain_caption, random_scene
from .concept import ConceptMeter

STEPS = 12
DRIFT_PROMPTS = 36


@dataclass(frozen=True)
class Score:
    """Means over the suite's pictures."""

    concept_fidelity: float
    prompt_fidelity: float  # share of places and backgrounds that follow the prompt
    drift: float  # RMSE to the base's picture of the same noise, other prompts, in pixel standard deviations
    flipped: float  # share of attributes that the reader reads otherwise on those

    def to_dict(self) -> dict[str, float]:
        return {k: round(v, 4) for k, v in self.__dict__.items()}


def asked(word: str, place: str, background: str) -> tuple[str, str, str]:
    """A caption with the place and the background that it asks for."""
    return glyph_caption(word, place, background), place, background


class Suite:
    """Holds the base's pictures, so that each method costs its own only."""

    def __init__(self, pipeline: DemoPipeline, glyph: Glyph, seed: int = 500, steps: int = STEPS, others: int = DRIFT_PROMPTS) -> None:
        """`others`: how many prompts without the concept the drift is measured on."""
        self.pipeline, self.glyph, self.steps = pipeline, glyph, steps
        self.meter, self.reader = ConceptMeter(glyph), load_reader()
        self.prompts = [asked(glyph.word, place, ground) for place in PLACES for ground in BACKGROUNDS]
        self.noise = make_noise(len(self.prompts), seed)
        rng = random.Random(seed)
        self.others = []
        for _ in range(others):
            scene = random_scene(rng, two_objects=0)
            self.others.append(plain_caption(scene.objects[0], scene.background))
        self.other_noise = make_noise(others, seed + 1)
        self.base_others = self.generate(self.others, self.other_noise)
        self.base_attributes = self.reader.read(self.base_others)

    def generate(self, captions: list[str], noise: Tensor) -> Tensor:
        return self.pipeline.generate(captions, noise=noise, steps=self.steps)

    def concept(self, prompts: list[tuple[str, str, str]] | None = None, noise: Tensor | None = None) -> tuple[float, float, Tensor]:
        """(concept fidelity, prompt fidelity, pictures) of whatever is attached to the pipeline now."""
        chosen = prompts or self.prompts
        images = self.generate([p[0] for p in chosen], self.noise[: len(chosen)] if noise is None else noise)
        reading = self.meter.read(images)
        return float(reading.fidelity.mean()), self.followed(images, reading.places, chosen), images

    def followed(self, images: Tensor, places: list[str], prompts: list[tuple[str, str, str]]) -> float:
        """Share of places and backgrounds as asked."""
        seen = self.reader.read(images)
        hits = [
            (place == wanted_place) + (row["background"] == wanted_ground)
            for place, row, (_, wanted_place, wanted_ground) in zip(places, seen, prompts, strict=True)
        ]
        return sum(hits) / (2 * len(hits))

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
