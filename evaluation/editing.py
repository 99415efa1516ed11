"""Editing one picture by prompt, with the subject kept: its ground, its pattern, its style; then its place, its size, and a second thing beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from ..demo_model.concepts import Prompt, render
from ..demo_model.pipeline import make_noise
from ..demo_model.scene import GROUNDS, PATTERNS, PLACES, SIZES, Sticker
from ..demo_model.subjects import SEEN_STYLES
from .suite import Suite

REPEATS = 2  # of each ground, with other noise
MOVED_GROUNDS = ("sky", "night", "clay")
SECOND = (Sticker("fox", "flat", "medium", "right"), Sticker("cactus", "glossy", "medium", "right"), Sticker("star", "flat", "small", "bottom"))
#: Kinds of edit after which the subject is not where or as large as it was.
MOVING = ("place", "size", "second")


def edit_prompts(word: str, place: str, ground: str) -> dict[str, list[Prompt]]:
    """By kind of edit: prompts for a picture that shows a large `word` at `place` on a plain `ground`."""
    other_grounds = [name for name in GROUNDS if name != ground]
    patterns = [name for name in PATTERNS if name != "plain"]
    return {
        "ground": [Prompt(word, place, other) for other in other_grounds] * REPEATS,
        "pattern": [Prompt(word, place, here, pattern=pattern) for pattern in patterns for here in (ground, *MOVED_GROUNDS[1:])],
        "style": [Prompt(word, place, here, style=style) for style in SEEN_STYLES for here in MOVED_GROUNDS],
        "place": [Prompt(word, other, here) for other in PLACES if other != place for here in MOVED_GROUNDS],
        "size": [Prompt(word, place, here, size=size) for size in SIZES if size != "large" for here in MOVED_GROUNDS],
        "second": [
            Prompt(word, "left" if one.place == "right" else "top", here, size="medium", second=one) for one in SECOND for here in MOVED_GROUNDS[:2]
        ],
    }


@dataclass(frozen=True)
class EditScore:
    """Means over the prompts that leave the subject where it is, and over those that move it; and each prompt's own."""

    subject_kept: float
    prompt_fidelity: float  # share of what the prompts ask for
    subject_kept_moved: float
    prompt_fidelity_moved: float
    drift: float
    by_kind: dict[str, float]  # prompt fidelity
    followed: list[float]  # by prompt, 0 to 1
    kept: list[float]  # by prompt
    outside: list[float]  # by prompt: PSNR (dB) to the base's own picture of it outside the subject; shows what whole shares hide
    structure: list[float]  # by prompt: SSIM to it, 1 is the same, outside the subject too
    images: Tensor

    def means(self) -> dict[str, float | dict[str, float]]:
        names = ("subject_kept", "prompt_fidelity", "subject_kept_moved", "prompt_fidelity_moved", "drift", "by_kind")
        return {name: getattr(self, name) for name in names}


def structure_kept(image: Tensor, base: Tensor, where: Tensor) -> float:
    """Mean SSIM (Wang et al. 2004, Gaussian windows) of two pictures (3, h, w) in [-1, 1] over the pixels where `where` (h, w) is 1."""
    pictures = (picture.float().numpy() for picture in (image, base))
    _, similar = structural_similarity(*pictures, channel_axis=0, data_range=2.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True)
    return float((torch.from_numpy(similar).mean(0) * where).sum() / where.sum())


class EditSuite:
    """The picture's place and ground are `place` and `ground`; prompts ask for something else."""

    def __init__(self, suite: Suite, seed: int, place: str = "center", ground: str = "sky", every: int = 1) -> None:
        """`every`: only every third prompt of each kind, say."""
        kinds = {kind: prompts[::every] for kind, prompts in edit_prompts(suite.word, place, ground).items()}
        self.suite = suite
        self.prompts = [prompt for prompts in kinds.values() for prompt in prompts]
        self.kinds = [kind for kind, prompts in kinds.items() for _ in prompts]
        self.noise = make_noise(len(self.prompts), seed)
        # Of the bare base: nothing is attached yet.
        self.base = suite.generate([p.caption for p in self.prompts], self.noise)
        # The concept's own drawing in any style: a style's word changes its cut. Grown by the places' jitter and a little more.
        masks = render([replace(p, style=None).scene for p in self.prompts], seed)[1].amax(1)
        self.away = (torch.nn.functional.max_pool2d(masks[:, None], 13, stride=1, padding=6)[:, 0] == 0).float()

    def score(self) -> EditScore:
        """Of whatever is attached to the pipeline now."""
        images = self.suite.generate([p.caption for p in self.prompts], self.noise)
        followed, kept = self.suite.followed(images, self.prompts), self.suite.fidelity(images, self.prompts).tolist()
        error = (((images - self.base) / 2).square().mean(1) * self.away).sum((1, 2)) / self.away.sum((1, 2))
        outside = [round(float(-10 * e.clamp(min=1e-10).log10()), 3) for e in error]
        structure = [round(structure_kept(*pictures), 4) for pictures in zip(images, self.base, self.away, strict=True)]

        def mean(values: Sequence[float], moved: bool) -> float:
            return fmean(value for value, kind in zip(values, self.kinds, strict=True) if (kind in MOVING) == moved)

        by_kind = {kind: fmean(value for value, one in zip(followed, self.kinds, strict=True) if one == kind) for kind in dict.fromkeys(self.kinds)}
        means = [mean(values, moved) for moved in (False, True) for values in (kept, followed)]
        return EditScore(*means, self.suite.drift()[0], by_kind, followed, [round(k, 4) for k in kept], outside, structure, images)
