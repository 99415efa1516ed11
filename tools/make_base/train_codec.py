"""The codec: principal directions of 6×6 patches, then a convolutional decoder that takes the patches' edges away."""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch

from ...demo_model.codec import PatchCodec
from ...demo_model.compositor import Atlas
from .parts import store
from .pool import Pool

BATCH = 64
RATE = 2e-3
# The base's samples and adapters leave the data's plane by about this much; half of the rows stay on it.
LATENT_NOISE = 0.30
FIT_ON = 4096


def fit_codec(work: Path, atlas: Atlas, pool: Pool) -> PatchCodec:
    """Principal directions alone; the base's training needs no more."""
    codec = PatchCodec()
    images = torch.cat([pool.draw(atlas, torch.arange(i, i + 256))[0].cpu() for i in range(0, min(FIT_ON, len(pool.ids)), 256)])
    codec.fit(images)
    store(codec.state_dict(), work / "codec.safetensors")
    return codec.eval().requires_grad_(False)


def decibels(images: torch.Tensor, decoded: torch.Tensor) -> float:
    """Peak signal to noise of pictures in [-1, 1]."""
    return -10 * math.log10(float((decoded.clamp(-1, 1) - images).square().mean()) / 4)


def train_decoder(work: Path, codec: PatchCodec, atlas: Atlas, pool: Pool, minutes: float, device: torch.device) -> dict[str, float]:
    """Train the decoder for `minutes` of wall time; returns the accuracy with it and without, in dB."""
    codec = codec.to(device).requires_grad_(True).train()
    parameters = list(codec.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    generator = torch.Generator(device).manual_seed(1)
    began, step = time.time(), 0
    while (done := (time.time() - began) / (60 * minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 100, (1 - done) / 0.5)
        images = pool.draw(atlas, torch.randint(len(pool.ids), (BATCH,), generator=generator, device=device))[0]
        latents = codec.encode(images)
        noise = torch.rand(BATCH, 1, 1, 1, device=device) * LATENT_NOISE * (torch.rand(BATCH, 1, 1, 1, device=device) < 0.5)
        difference = codec.decode(latents + torch.randn_like(latents) * noise) - images
        loss = difference.square().mean() + 0.05 * difference.abs().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        step += 1
        if step % 200 == 0:
            print(f"codec: step {step}, loss {loss.item():.5f}", flush=True)
    codec.eval().requires_grad_(False)
    images = pool.draw(atlas, torch.arange(256, device=device))[0]
    latents = codec.encode(images)
    store(codec.state_dict(), work / "codec.safetensors")
    return {"psnr_db": decibels(images, codec.decode(latents)), "psnr_linear_db": decibels(images, codec.decode_linear(latents))}
