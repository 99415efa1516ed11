"""One picture drawn step by step with whatever UNet and VAE it is given: the part that all hosts must agree on. Torch only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

STRENGTH, STEPS, GUIDANCE = 0.8, 4, 3.0


def start() -> tuple[Tensor, Tensor, Tensor]:
    """Noise (1, 4, 8, 8), and what a prompt and an empty prompt are encoded as, (1, 77, 768)."""
    generator = torch.Generator().manual_seed(7)
    return (torch.randn(1, 4, 8, 8, generator=generator), *(torch.randn(1, 77, 768, generator=generator) for _ in range(2)))


@torch.no_grad()
def draw(unet: Callable[[Tensor, Tensor, Tensor], Tensor], decode: Callable[[Tensor], Tensor]) -> Tensor:
    """(H, W, 3) bytes. `unet(x, t, context)` predicts the noise of SD1.5's schedule, `decode` gives (1, 3, H, W) in [-1, 1]."""
    x, prompt, empty = start()
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1 - betas, 0).float()
    levels = torch.linspace(999, 0, STEPS).long()
    for index, level in enumerate(levels):
        with_prompt, without = (unet(x, level.float()[None], context) for context in (prompt, empty))
        noise, alpha = without + GUIDANCE * (with_prompt - without), alphas[level]
        clean = (x - (1 - alpha).sqrt() * noise) / alpha.sqrt()
        after = alphas[levels[index + 1]] if index + 1 < STEPS else torch.tensor(1.0)
        x = after.sqrt() * clean + (1 - after).sqrt() * noise
    picture = decode(x)[0].float().clamp(-1, 1)
    return ((picture + 1) * 127.5).round().byte().movedim(0, -1).contiguous()
