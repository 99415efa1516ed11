"""How much of a drawing is in a picture, and where: the share of it that the picture explains where it fits best, against bare ground.

1.0 is what the renderer's own pictures on plain grounds reach; 0 is the picture's own ground without a drawing, or with one that is no nearer. Our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..demo_model.concepts import CONCEPT_STYLE, DRAWING_OF, Prompt, render
from ..demo_model.finish import PAD
from ..demo_model.reader import AttributeReader
from ..demo_model.scene import GROUNDS, MARGIN, PLACES, SIZE, SIZES
from ..demo_model.sheets import sprite_index, sprites
from ..demo_model.subjects import STYLES


@dataclass(frozen=True)
class ConceptReading:
    """One number a picture: fidelity (B,), and the drawing's place by name."""

    fidelity: Tensor
    places: list[str]


class ConceptMeter:
    """Finds one concept's drawing in pictures (B, 3, 96, 96) in [-1, 1]."""

    def __init__(self, word: str) -> None:
        """Raises KeyError for a word without a drawing."""
        index = sprite_index(DRAWING_OF[word], CONCEPT_STYLE)
        # (4, s, s) each, premultiplied. What lies around a drawing would leave the picture at some of its places.
        self._drawings = {size: sprites(pixels)[index, :, PAD:-PAD, PAD:-PAD] for size, pixels in SIZES.items()}
        spots = [Prompt(word, place, ground, size) for size in SIZES for place in PLACES for ground in GROUNDS]
        self._ceiling = 1.0
        # Their places are not whole pixels, so alignment leaves a little.
        self._ceiling = float(self.read(render([spot.scene for spot in spots], 18)[0], spots).fidelity.mean())

    @torch.no_grad()
    def read(self, images: Tensor, prompts: Sequence[Prompt]) -> ConceptReading:
        """Fidelity and place of the best alignment over positions, at each prompt's size."""
        fidelity, places = torch.zeros(len(images)), [""] * len(images)
        for size in dict.fromkeys(p.size for p in prompts):
            rows = [row for row, prompt in enumerate(prompts) if prompt.size == size]
            explained, shifts = self._aligned(images[rows], size)
            fidelity[rows] = (explained / self._ceiling).clamp(0, 1)
            for row, shift in zip(rows, shifts.tolist(), strict=True):
                places[row] = self._place(shift, size)
        return ConceptReading(fidelity, places)

    def _aligned(self, images: Tensor, size: str) -> tuple[Tensor, Tensor]:
        """1 − squared error / that of the bare ground, where it is most (B,), and the index of that shift (B,)."""
        pixels = ((images.float() + 1) / 2).clamp(0, 1)
        colour, mask = self._drawings[size][:3], self._drawings[size][3:]
        ground = pixels.flatten(2).median(2).values  # (B, 3); a drawing covers less than half of a picture
        # Σ (I − E)² over the drawing's square, E = a·c + (1 − a)·g, for all shifts at once; the sheet's colours are a·c.
        around = 1 - mask
        shared = (_correlated(pixels, colour) + _correlated(pixels, around) * ground[:, :, None, None]).sum(1)
        squares = _correlated(pixels.square().sum(1, keepdim=True), torch.ones_like(mask)).squeeze(1)
        wanted = colour + around * ground[:, :, None, None]  # (B, 3, s, s)
        error = (squares - 2 * shared).flatten(1) + wanted.square().sum((1, 2, 3))[:, None]
        bare = (wanted - ground[:, :, None, None]).square().sum((1, 2, 3))[:, None]
        most = (1 - error / bare.clamp(min=1e-6)).max(1)
        return most.values, most.indices

    def _place(self, index: int, size: str) -> str:
        side = SIZE - SIZES[size] + 1
        y, x = divmod(index, side)
        reach = (side - 1) / 2 - MARGIN
        u, v = (x - (side - 1) / 2) / reach, (y - (side - 1) / 2) / reach
        return min(PLACES, key=lambda name: (PLACES[name][0] - u) ** 2 + (PLACES[name][1] - v) ** 2)


def _correlated(images: Tensor, kernel: Tensor) -> Tensor:
    """Σ image · kernel for each shift of the kernel (C or 1, s, s) within images (B, C, h, w): (B, C, h − s + 1, w − s + 1). By Fourier
    transforms: a drawing is too large a kernel for a convolution."""
    size, side = images.shape[-2:], kernel.shape[-1]
    products = torch.fft.rfft2(images.double(), size) * torch.fft.rfft2(kernel.double(), size).conj()
    return torch.fft.irfft2(products, size)[..., : size[0] - side + 1, : size[1] - side + 1].float()


@torch.no_grad()
def style_strength(images: Tensor, style: str, reader: AttributeReader) -> Tensor:
    """How sure the reader is that pictures are drawn in a style, (B,) from 0 to 1."""
    return reader(images.float())["style"].softmax(1)[:, list(STYLES).index(style)]
