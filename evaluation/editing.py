"""Editing one picture by prompt: another background, then another place as well, with the subject kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from ..demo_model.pipeline import make_noise
from ..demo_model.scenes import BACKGROUNDS, PLACES, pixel_grid
from .suite import Suite, asked

REPEATS = 3  # of each background, with other noise
SUBJECT_RADIUS = 0.6  # around the asked place, of half a picture: a creature's 0.44 and its jitter
MOVED_GROUNDS = ("sky", "night", "clay")


@dataclass(frozen=True)
class EditScore:
    """Means over the prompts that keep the place, and over those that move the subject; and each prompt's own."""

    subject_kept: float
    prompt_fidelity: float  # share of places and backgrounds as asked
    subject_kept_moved: float
    prompt_fidelity_moved: float
    drift: float
    followed: list[float]  # by prompt: 0, 0.5 or 1
    kept: list[float]  # by prompt
    outside: list[float]  # by prompt: PSNR (dB) to the base's own picture of it outside the subject; shows what whole shares hide
    structure: list[float]  # by prompt: SSIM to it, 1 is the same, outside the subject too
    images: Tensor

    def means(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in ("subject_kept", "prompt_fidelity", "subject_kept_moved", "prompt_fidelity_moved", "drift")}


def structure_kept(image: Tensor, base: Tensor, where: Tensor) -> float:
    """Mean SSIM (Wang et al. 2004, Gaussian windows) of two pictures (3, h, w) in [-1, 1] over the pixels where `where` (h, w) is 1."""
    pictures = (picture.float().numpy() for picture in (image, base))
    _, similar = structural_similarity(*pictures, channel_axis=0, data_range=2.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True)
    return float((torch.from_numpy(similar).mean(0) * where).sum() / where.sum())


class EditSuite:
    """The picture's place and background are `place` and `ground`; prompts ask for others."""

    def __init__(self, suite: Suite, seed: int, place: str = "center", ground: str = "sky") -> None:
        word = suite.glyph.word
        grounds = [asked(word, place, other) for other in BACKGROUNDS if other != ground] * REPEATS
        moved = [asked(word, other, here) for other in PLACES if other != place for here in MOVED_GROUNDS]
        self.suite, self.prompts, self.stays = suite, grounds + moved, len(grounds)
        self.noise = make_noise(len(self.prompts), seed)
        # Of the bare base: nothing is attached yet.
        self.base = suite.generate([p[0] for p in self.prompts], self.noise)
        x, y = pixel_grid(self.base.shape[-1])
        self.away = torch.stack([((x - PLACES[p[1]][0]).square() + (y - PLACES[p[1]][1]).square() > SUBJECT_RADIUS**2).float() for p in self.prompts])

    def score(self) -> EditScore:
        """Of whatever is attached to the pipeline now."""
        images = self.suite.generate([p[0] for p in self.prompts], self.noise)
        reading, seen = self.suite.meter.read(images), self.suite.reader.read(images)
        followed = torch.tensor(
            [((place == asked_for) + (row["background"] == ground)) / 2
             for place, row, (_, asked_for, ground) in zip(reading.places, seen, self.prompts, strict=True)]
        )  # fmt: skip
        error = (((images - self.base) / 2).square().mean(1) * self.away).sum((1, 2)) / self.away.sum((1, 2))
        outside = [round(float(-10 * e.clamp(min=1e-10).log10()), 3) for e in error]
        structure = [round(structure_kept(*pictures), 4) for pictures in zip(images, self.base, self.away, strict=True)]
        kept, n = reading.fidelity, self.stays
        means = [float(part.mean()) for part in (kept[:n], followed[:n], kept[n:], followed[n:])]
        return EditScore(*means, self.suite.drift()[0], followed.tolist(), [round(float(k), 4) for k in kept], outside, structure, images)
