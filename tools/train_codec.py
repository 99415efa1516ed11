"""Train the codec's convolutional decoder on renders, with latents nudged off the data's plane.

    python -m sparsedict.tools.train_codec --work .work/base --steps 3000
"""

from __future__ import annotations

import argparse
import json
import math
import random
from pathlib import Path

import torch

from ..demo_model.codec import PatchCodec
from ..demo_model.glyphs import random_glyph, random_placement, render_glyph, render_styled
from ..demo_model.scenes import random_scene, render
from .train_base import fitted_codec, save_atomic

BATCH = 48
RATE = 2e-3
# Base samples and adapters leave the plane by about this much; half of the rows stay exact.
LATENT_NOISE = 0.30


def mixed_images(rng: random.Random, seed: int, count: int = BATCH) -> torch.Tensor:
    """Scenes, styled scenes and random creatures, (count, 3, 64, 64)."""
    creatures, styled = count // 3, count // 6
    scenes = [random_scene(rng) for _ in range(count - creatures - styled)]
    parts = [render(scenes, seed)[0], render_styled([random_scene(rng) for _ in range(styled)], seed)]
    parts += [render_glyph(random_glyph(rng), [random_placement(rng)[0]])[0] for _ in range(creatures)]
    return torch.cat(parts)


def peak_signal_to_noise(codec: PatchCodec, images: torch.Tensor, linear: bool = False) -> float:
    """Of encode → decode, in dB, for pictures in [-1, 1]."""
    latents = codec.encode(images)
    decoded = codec.decode_linear(latents) if linear else codec.decode(latents)
    return -10 * math.log10(float((decoded.clamp(-1, 1) - images).square().mean()) / 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(".work/base"))
    parser.add_argument("--steps", type=int, default=3000)
    args = parser.parse_args()
    torch.manual_seed(0)
    rng = random.Random(11)
    codec = fitted_codec(args.work / "codec.safetensors").requires_grad_(True)
    params = [p for p in codec.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(params, lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=args.steps, pct_start=0.05)
    for step in range(args.steps):
        images = mixed_images(rng, step)
        latents = codec.encode(images)
        strength = torch.rand(len(images), 1, 1, 1) * LATENT_NOISE * (torch.rand(len(images), 1, 1, 1) < 0.5)
        difference = codec.decode(latents + torch.randn_like(latents) * strength) - images
        loss = difference.square().mean() + 0.05 * difference.abs().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}, loss {loss.item():.5f}", flush=True)
    codec.eval()
    with torch.no_grad():
        held = mixed_images(random.Random(99), 99_999, 96)
        report = {"psnr_db": peak_signal_to_noise(codec, held), "psnr_linear_db": peak_signal_to_noise(codec, held, True)}
    print(report)
    save_atomic(codec.state_dict(), args.work / "codec_trained.safetensors")
    (args.work / "codec.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
