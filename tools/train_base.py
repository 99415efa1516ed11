"""Train the embedded base: transformer and word encoder, by flow matching on scenes drawn afresh for each batch.

    python -m sparsedict.tools.train_base --minutes 75 --work .work/base

Resumes from its last checkpoint; the learning rate decays over the last 30 % of the minutes. ``--warm`` starts from the shipped
weights instead of from nothing, and counts the images that they had seen.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialised

from ..demo_model.architecture import LATENT_SIZE, build_transformer
from ..demo_model.codec import CHANNELS, PatchCodec
from ..demo_model.pipeline import WEIGHTS, load_part
from ..demo_model.scenes import caption, random_scene, render
from ..demo_model.text_encoder import WordEncoder
from ..demo_model.vocabulary import CONTEXT_LENGTH, tokenize
from ..sparsedict_core.atomic_write import write_atomically

BATCH = 128
CAPTION_DROPOUT = 0.1
EMA_DECAY = 0.998
MUON_RATE = 2e-3
ADAM_RATE = 1.5e-3


def save_atomic(tensors: dict[str, torch.Tensor], path: Path) -> None:
    write_atomically(path, serialised({k: v.contiguous() for k, v in tensors.items()}))


def fitted_codec(path: Path) -> PatchCodec:
    """The codec with its principal directions; fitted on 4,096 scenes at the first call."""
    codec = PatchCodec()
    if path.exists():
        codec.load_state_dict(load_file(str(path)))
    else:
        rng = random.Random(7)
        codec.fit(render([random_scene(rng) for _ in range(4096)], seed=7)[0])
        save_atomic(codec.state_dict(), path)
    return codec.eval().requires_grad_(False)


def make_batch(codec: PatchCodec, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clean latents (BATCH, 16, 16, 16) and token ids (BATCH, 16)."""
    rng = random.Random(seed)
    scenes = [random_scene(rng, two_objects=0.2) for _ in range(BATCH)]
    images, _ = render(scenes, seed)
    ids = [
        [0] * CONTEXT_LENGTH if rng.random() < CAPTION_DROPOUT else tokenize(caption(scene, rng)) for scene in scenes
    ]
    return codec.encode(images), torch.tensor(ids)


def parameter_groups(model: torch.nn.Module) -> tuple[list, list]:
    """Muon's matrices (attention and feed-forward inside the blocks), and the rest for AdamW."""
    matrices, rest = [], []
    for name, p in model.named_parameters():
        inside = name.startswith("0.transformer_blocks") and ".norm" not in name
        (matrices if inside and p.ndim == 2 else rest).append(p)
    return matrices, rest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--work", type=Path, default=Path(".work/base"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warm", action="store_true", help="go on from the shipped weights where there is no checkpoint")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    args.work.mkdir(parents=True, exist_ok=True)
    codec = fitted_codec(args.work / "codec.safetensors")
    model = torch.nn.ModuleList([build_transformer(), WordEncoder()])
    transformer, words = model[0], model[1]
    matrices, rest = parameter_groups(model)
    optimisers = [
        torch.optim.Muon(matrices, lr=MUON_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.01),
    ]
    rates = [MUON_RATE, ADAM_RATE]
    seen, spent = 0, 0.0
    state_path = args.work / "state.safetensors"
    if args.warm and not state_path.exists():
        seen = warm_start(model)
    if state_path.exists():
        stored = load_file(str(state_path))
        progress = json.loads((args.work / "progress.json").read_text())
        seen, spent = progress["images"], progress["seconds"]
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(stored[f"model.{name}"])
        ema = {name: stored[f"ema.{name}"] for name, _ in model.named_parameters()}
    else:
        ema = {name: p.detach().clone() for name, p in model.named_parameters()}
    start, running, last_save = time.time(), None, time.time()
    step = seen // BATCH
    while True:
        progress = (spent + time.time() - start) / (args.minutes * 60)
        if progress >= 1:
            break
        factor = min(1.0, (step + 1) / 100, max(0.0, (1 - progress) / 0.3))
        for optimiser, rate in zip(optimisers, rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
        clean, ids = make_batch(codec, seed=1_000 + step)
        levels = torch.sigmoid(torch.randn(BATCH))
        noise = torch.randn(BATCH, CHANNELS, LATENT_SIZE, LATENT_SIZE)
        t = levels.view(-1, 1, 1, 1)
        context, pooled = words(ids)
        predicted = transformer(
            hidden_states=(1 - t) * clean + t * noise,
            encoder_hidden_states=context,
            pooled_projections=pooled,
            timestep=levels * 1000,
        ).sample
        loss = (predicted - (noise - clean)).square().mean()
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        with torch.no_grad():
            decay = min(EMA_DECAY, (step + 1) / (step + 10))
            for name, p in model.named_parameters():
                ema[name].lerp_(p, 1 - decay)
        step += 1
        seen += BATCH
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        if step % 50 == 0:
            seconds = spent + time.time() - start
            print(f"{seen} images, {seconds / 60:.1f} min, loss {running:.4f}, rate × {factor:.2f}", flush=True)
        if time.time() - last_save > 120:
            store(args.work, model, ema, seen, spent + time.time() - start)
            last_save = time.time()
    store(args.work, model, ema, seen, spent + time.time() - start)


def warm_start(model: torch.nn.Module) -> int:
    """Load the shipped transformer and word encoder; returns the images that they had seen."""
    for part, name in zip(model, ("transformer", "text_encoder"), strict=True):
        part.load_state_dict(load_part(name), strict=False)
    return json.loads((WEIGHTS / "model_card.json").read_text())["images_seen"]


def store(work: Path, model: torch.nn.Module, ema: dict[str, torch.Tensor], seen: int, seconds: float) -> None:
    """The weights (for resuming) and the averaged weights; the optimisers' moments are rebuilt within a few steps."""
    tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    tensors |= {f"ema.{name}": value for name, value in ema.items()}
    save_atomic(tensors, work / "state.safetensors")
    (work / "progress.json").write_text(json.dumps({"images": seen, "seconds": seconds}))


if __name__ == "__main__":
    main()
