"""Where in a picture a model's tokens are, and which sites have such."""

from __future__ import annotations

import torch
from torch import Tensor

#: Parts of a stream's name that tell of words rather than places: a text's own Linears, and keys and values made from a text.
_WORDS = (("text",), ("cross", "k"), ("cross", "v"), ("add_k",), ("add_v",))


def has_places(stream: str | None) -> bool:
    """Whether the tokens of a site are a picture's."""
    parts = (stream or "").split(".")
    return not any(all(word in parts for word in words) for words in _WORDS)


def on_grid(tokens: Tensor, latent_size: tuple[int, ...], text_first: bool = True) -> Tensor | None:
    """(tokens) → (h, w): the finest halving of the latent grid (h, w) or (frames, h, w) that has no more places than there are
    tokens; frames are averaged. None where no halving fits.

    Where tokens are left over, they are a text's: before the picture's, or after them if not `text_first`.
    """
    *frames, height, width = latent_size
    depth = frames[0] if frames else 1
    for factor in (1, 2, 4, 8, 16, 32):
        h, w = -(-height // factor), -(-width // factor)
        count = depth * h * w
        if count <= len(tokens):
            picture = tokens[len(tokens) - count :] if text_first else tokens[:count]
            return picture.reshape(depth, h, w).mean(0).cpu()
    return None


def thumbnail(grid: Tensor, side: int = 32) -> Tensor:
    """(h, w) of 0 or more → (h', w') of bytes, 255 where it is largest; no more than `side` either way, means of the places that fall together."""
    factor = max(1, -(-max(grid.shape) // side))
    small = torch.nn.functional.avg_pool2d(grid.float()[None, None], factor, ceil_mode=True)[0, 0]
    return (255 * small / small.max().clamp(min=1e-12)).round().byte().contiguous()
