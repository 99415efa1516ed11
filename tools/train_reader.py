"""Train the attribute reader on renders and on the codec's output; report its accuracy on fresh renders.

    python -m sparsedict.tools.train_reader --work .work/base --steps 2500
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
from torch.nn import functional as F

from ..demo_model.codec import PatchCodec
from ..demo_model.glyphs import random_glyph, random_placement, render_glyph
from ..demo_model.reader import ATTRIBUTES, AttributeReader
from ..demo_model.scenes import random_scene, render
from .train_base import fitted_codec, save_atomic

BATCH = 64
RATE = 3e-3
IGNORED = -100


def labelled_images(rng: random.Random, seed: int, count: int, creatures: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """One-object scenes with their attributes, and creatures, whose shape is "other"."""
    scenes = [random_scene(rng, two_objects=0, held_out=rng.random() < 0.15) for _ in range(count - creatures)]
    images = [render(scenes, seed)[0]]
    rows = [{**{k: getattr(s.objects[0], k) for k in ATTRIBUTES if k != "background"}, "background": s.background} for s in scenes]
    for _ in range(creatures):
        placement, place = random_placement(rng)
        images.append(render_glyph(random_glyph(rng), [placement])[0])
        rows.append({"shape": "other", "place": place, "background": placement.background})
    labels = {
        name: torch.tensor([values.index(row[name]) if name in row else IGNORED for row in rows])
        for name, values in ATTRIBUTES.items()
    }
    return torch.cat(images), labels


def disturbed(images: torch.Tensor, codec: PatchCodec, generator_scale: float = 0.25) -> torch.Tensor:
    """Half of the pictures pass through the codec with noisy latents, as the base's samples do."""
    latents = codec.encode(images)
    scale = torch.rand(len(images), 1, 1, 1) * generator_scale
    through = codec.decode(latents + torch.randn_like(latents) * scale)
    return torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, through, images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(".work/base"))
    parser.add_argument("--steps", type=int, default=2500)
    args = parser.parse_args()
    torch.manual_seed(0)
    rng = random.Random(5)
    trained = args.work / "codec_trained.safetensors"
    codec = fitted_codec(trained if trained.exists() else args.work / "codec.safetensors")
    reader = AttributeReader()
    optimiser = torch.optim.AdamW(reader.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=args.steps, pct_start=0.1)
    for step in range(args.steps):
        with torch.no_grad():
            images, labels = labelled_images(rng, step, BATCH, BATCH // 6)
            images = disturbed(images, codec)
        logits = reader(images)
        loss = sum(F.cross_entropy(logits[name], labels[name], ignore_index=IGNORED) for name in ATTRIBUTES)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}, loss {loss.item():.4f}", flush=True)
    reader.eval()
    report = {}
    for kind in ("renders", "codec"):
        with torch.no_grad():
            images, labels = labelled_images(random.Random(1234), 1_234_567, 2000, 200)
            if kind == "codec":
                images = codec.decode(codec.encode(images))
            logits = {k: torch.cat(v) for k, v in _batched(reader, images).items()}
        report[kind] = {
            name: float((logits[name].argmax(1) == labels[name])[labels[name] != IGNORED].float().mean()) for name in ATTRIBUTES
        }
    print(json.dumps(report, indent=1))
    save_atomic(reader.state_dict(), args.work / "reader.safetensors")
    (args.work / "reader.json").write_text(json.dumps(report))


def _batched(reader: AttributeReader, images: torch.Tensor) -> dict[str, list[torch.Tensor]]:
    out: dict[str, list[torch.Tensor]] = {name: [] for name in ATTRIBUTES}
    for chunk in images.split(250):
        for name, values in reader(chunk).items():
            out[name].append(values)
    return out


if __name__ == "__main__":
    main()
