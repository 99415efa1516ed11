"""Write the trained parts into demo_model/weights, fp16, and the model card with measured figures.

    python -m sparsedict.tools.export_base --work .work/base
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
from safetensors.torch import load_file

from ..demo_model.pipeline import WEIGHTS, DemoPipeline, load_reader
from ..demo_model.scenes import plain_caption, random_scene
from ..demo_model.vocabulary import PLACEHOLDERS, WORDS
from .train_base import save_atomic

SAMPLES = 240
CARD = WEIGHTS.parent / "MODEL_CARD.md"


def export(work: Path) -> None:
    """fp16 copies of the averaged weights, the codec and the reader."""
    state = load_file(str(work / "state.safetensors"))
    for part, prefix in (("transformer", "ema.0."), ("text_encoder", "ema.1.")):
        tensors = {k[len(prefix) :]: v.half() for k, v in state.items() if k.startswith(prefix)}
        save_atomic(tensors, WEIGHTS / f"{part}.safetensors")
    for part, name in (("codec", "codec_trained"), ("reader", "reader")):
        tensors = load_file(str(work / f"{name}.safetensors"))
        halves = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
        # The linear codec's directions must invert each other exactly enough; they are small.
        halves |= {k: tensors[k] for k in ("mean", "encode_matrix", "decode_matrix") if k in tensors}
        save_atomic(halves, WEIGHTS / f"{part}.safetensors")


def measure(pipeline: DemoPipeline, held_out: bool, samples: int = SAMPLES, steps: int = 24) -> dict[str, float]:
    """Share of one-object samples in which the reader finds each prompted attribute."""
    reader, rng = load_reader(), random.Random(42 + held_out)
    scenes = [random_scene(rng, two_objects=0, held_out=held_out) for _ in range(samples)]
    hits = dict.fromkeys(("shape", "colour", "size", "place", "texture", "background", "shape_and_colour"), 0)
    for first in range(0, samples, 60):
        chunk = scenes[first : first + 60]
        captions = [plain_caption(scene.objects[0], scene.background) for scene in chunk]
        found = reader.read(pipeline.generate(captions, seed=first, steps=steps))
        for scene, seen in zip(chunk, found, strict=True):
            item = scene.objects[0]
            wanted = {k: getattr(item, k) for k in ("shape", "colour", "size", "place", "texture")}
            wanted["background"] = scene.background
            for name, value in wanted.items():
                hits[name] += seen[name] == value
            hits["shape_and_colour"] += seen["shape"] == item.shape and seen["colour"] == item.colour
    return {name: count / samples for name, count in hits.items()}


def write_card(work: Path, figures: dict[str, dict[str, float]]) -> None:
    """MODEL_CARD.md and model_card.json beside the weights; every figure is measured by this script."""
    progress = json.loads((work / "progress.json").read_text())
    facts = {
        "samples": figures,
        "reader": json.loads((work / "reader.json").read_text()),
        "codec": json.loads((work / "codec.json").read_text()),
        "images_seen": progress["images"],
        "training_minutes": round(progress["seconds"] / 60, 1),
        "bytes": {p.name: p.stat().st_size for p in sorted(WEIGHTS.glob("*.safetensors"))},
    }
    (WEIGHTS / "model_card.json").write_text(json.dumps(facts, indent=1) + "\n")
    rows = [f"| {n} | {figures['seen'][n]:.1%} | {figures['held_out'][n]:.1%} |" for n in figures["seen"]]
    reader = facts["reader"]
    lines = [
        "# The embedded base model",
        "",
        "A small text-to-image diffusion transformer for scenes of one or two shapes, 64×64 pixels. It shows the mechanism;",
        "it says nothing about the quality on SDXL or Flux. Apache-2.0, trained from scratch on the renderer in `scenes.py`.",
        "",
        f"- transformer: `SD3Transformer2DModel`, 3 layers of 192, patch 2, 16 latent channels; {progress['images']:,} images, "
        f"{facts['training_minutes']} minutes on one to two CPU threads, flow matching, caption dropout 10 %",
        f"- codec: PCA of 4×4×3 patches and a convolutional decoder, {facts['codec']['psnr_db']:.1f} dB "
        f"({facts['codec']['psnr_linear_db']:.1f} dB without the decoder) on scenes, styled scenes and creatures",
        f"- text encoder: {len(WORDS)} words ({' '.join(WORDS)}) and {len(PLACEHOLDERS)} placeholder words that training "
        f"never saw ({' '.join(PLACEHOLDERS)})",
        f"- files: {sum(facts['bytes'].values()) / 1e6:.1f} MB in all",
        "",
        f"Attributes found by the reader in {SAMPLES} one-object samples each (24 steps, guidance 3.5), for pairs of shape and",
        "colour that training saw, and for pairs it never saw:",
        "",
        "| attribute | seen pairs | held-out pairs |",
        "|---|---|---|",
        *rows,
        "",
        "The reader's own accuracy on 2,000 fresh renders, and on the same through the codec:",
        "",
        "| attribute | renders | codec |",
        "|---|---|---|",
        *(f"| {n} | {reader['renders'][n]:.1%} | {reader['codec'][n]:.1%} |" for n in reader["renders"]),
        "",
        "Made by `python -m sparsedict.tools.train_base`, `train_codec`, `train_reader`, then `export_base`, which writes this page.",
    ]
    CARD.write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(".work/base"))
    parser.add_argument("--samples", type=int, default=SAMPLES)
    args = parser.parse_args()
    torch.manual_seed(0)
    export(args.work)
    pipeline = DemoPipeline.load()
    figures = {name: measure(pipeline, name == "held_out", args.samples) for name in ("seen", "held_out")}
    print(json.dumps(figures, indent=1))
    write_card(args.work, figures)


if __name__ == "__main__":
    main()
