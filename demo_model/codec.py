"""The embedded image codec: a linear patch encoder (PCA) and a small convolutional decoder.

A patch of 6×6×3 pixel values becomes 16 channels by fixed principal directions, so a 96×96 picture is a (16, 16, 16)
latent. The decoder is trained to undo that and to hide the patch grid where a latent leaves the data's plane.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PATCH = 6
CHANNELS = 16
_HIDDEN = 64


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


class PatchCodec(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] ↔ latents (B, 16, H/p, W/p) for patches of p pixels; H and W are multiples of p."""

    def __init__(self, patch: int = PATCH) -> None:
        super().__init__()
        self.patch = patch
        self.register_buffer("mean", torch.zeros(3 * patch * patch))
        self.register_buffer("encode_matrix", torch.zeros(CHANNELS, 3 * patch * patch))
        self.register_buffer("decode_matrix", torch.zeros(3 * patch * patch, CHANNELS))
        self.refine_in = nn.Conv2d(CHANNELS, _HIDDEN, 3, padding=1)
        self.refine = nn.Sequential(*(_Residual(_HIDDEN) for _ in range(4)))
        self.refine_out = nn.Conv2d(_HIDDEN, 3 * patch * patch, 3, padding=1)
        # At pixel resolution, where the seams between patches are.
        self.smooth = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 3, 3, padding=1))
        for layer in (self.refine_out, self.smooth[2]):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Set the principal directions from images (N, 3, H, W)."""
        rows = F.pixel_unshuffle(images, self.patch).permute(0, 2, 3, 1).flatten(0, 2).double()
        mean = rows.mean(0)
        centred = rows - mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(rows))
        directions = vectors[:, -CHANNELS:].flip(1)
        spread = values[-CHANNELS:].flip(0).sqrt()
        # Between raw and whitened: fine detail stays smaller than colour, so sampling goes from coarse to fine.
        scale = spread.sqrt()
        scale = scale * ((spread / scale) ** 2).mean().sqrt()
        self.mean.copy_(mean)
        self.encode_matrix.copy_((directions / scale).T)
        self.decode_matrix.copy_(directions * scale)

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 16, H/p, W/p)."""
        patches = F.pixel_unshuffle(images, self.patch) - self.mean.view(1, -1, 1, 1)
        return F.conv2d(patches, self.encode_matrix[:, :, None, None])

    def decode_linear(self, latents: Tensor) -> Tensor:
        """The inverse of encode, to the PCA's accuracy; shows the patch grid off the data's plane."""
        patches = F.conv2d(latents, self.decode_matrix[:, :, None, None]) + self.mean.view(1, -1, 1, 1)
        return F.pixel_shuffle(patches, self.patch)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, 16, h, w) → (B, 3, p·h, p·w), about [-1, 1] (not clamped)."""
        coarse = self.decode_linear(latents)
        detail = self.refine_out(self.refine(self.refine_in(latents)))
        image = coarse + F.pixel_shuffle(detail, self.patch)
        return image + self.smooth(image)
