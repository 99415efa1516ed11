"""Transformer and word encoder, by flow matching, for a given time; goes on from its last checkpoint."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ...demo_model.architecture import LATENT_SIZE
from ...demo_model.codec import CHANNELS, PatchCodec
from ...demo_model.compositor import Atlas
from ...demo_model.precision import bf16_pays
from ...demo_model.vocabulary import PAD
from .muon import Muon
from .parts import make_model, store
from .pool import Pool

CAPTION_DROPOUT = 0.1
EMA_DECAY = 0.9995
MUON_RATE = 2e-3
ADAM_RATE = 1.5e-3
DECAY_SHARE = 0.3  # of the time: crisp drawings come with the decay
# At first only half of a picture's tokens are computed: the drawings' own first. Grounds are learned in a tenth of the time.
WHOLE_SHARE = 0.1
TOKENS_KEPT = 32
TOKENS_SIDE = LATENT_SIZE // 2
SAVE_EVERY = 120.0  # seconds


class FlowLoss(nn.Module):
    """Mean squared error of the flow at logit-normal noise levels."""

    def __init__(self, model: nn.ModuleList) -> None:
        super().__init__()
        self.transformer, self.words = model[0], model[1]

    def forward(self, clean: Tensor, noise: Tensor, levels: Tensor, ids: Tensor, kept: Tensor | None) -> Tensor:
        """Latents and noise (B, 16, h, w), levels (B) in (0, 1), ids (B, words); `kept` (B, k) says which tokens are computed, None all."""
        t = levels.view(-1, 1, 1, 1)
        context, pooled = self.words(ids)
        noisy, target = (1 - t) * clean + t * noise, noise - clean
        model = self.transformer
        if kept is None:
            flow = model(hidden_states=noisy, encoder_hidden_states=context, pooled_projections=pooled, timestep=levels * 1000).sample
            return (flow.float() - target).square().mean()
        chosen = kept.unsqueeze(-1)
        hidden = model.pos_embed(noisy)
        hidden = hidden.gather(1, chosen.expand(-1, -1, hidden.shape[-1]))
        embedded, context = model.time_text_embed(levels * 1000, pooled), model.context_embedder(context)
        for block in model.transformer_blocks:
            context, hidden = block(hidden_states=hidden, encoder_hidden_states=context, temb=embedded)
        flow = model.proj_out(model.norm_out(hidden, embedded))
        # The transformer's last layer has its outputs in the order (row, column, channel) of a patch.
        tokens = target.unflatten(2, (TOKENS_SIDE, 2)).unflatten(4, (TOKENS_SIDE, 2)).permute(0, 2, 4, 3, 5, 1).flatten(1, 2).flatten(2)
        return (flow.float() - tokens.gather(1, chosen.expand(-1, -1, tokens.shape[-1]))).square().mean()


def drawn_tokens(masks: Tensor) -> Tensor:
    """TOKENS_KEPT tokens (B, k): of masks (B, 2, 96, 96) those that a drawing touches come first, in a random choice; others fill up."""
    covered = F.adaptive_max_pool2d(masks.amax(1), TOKENS_SIDE).flatten(1)
    return (covered.ceil() + torch.rand_like(covered)).topk(TOKENS_KEPT, dim=1).indices


def optimisers_of(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, and AdamW for the rest."""
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        inside = name.startswith("0.transformer_blocks") and ".norm" not in name and parameter.ndim == 2
        (matrices if inside else rest).append(parameter)
    return [Muon(matrices, lr=MUON_RATE, weight_decay=0.01), torch.optim.AdamW(rest, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.01)]


def train_base(work: Path, codec: PatchCodec, atlas: Atlas, pool: Pool, minutes: float, device: torch.device, batch: int, compiled: bool) -> dict[str, float]:
    """Train until `minutes` of wall time are spent, those of earlier calls counted; returns images seen, seconds and loss."""
    torch.manual_seed(0)
    model = make_model().to(device)
    ema = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    seen, spent, loss_before = 0, 0.0, 0.0
    if (work / "state.safetensors").exists():
        stored = load_file(str(work / "state.safetensors"), device=str(device))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(stored[f"model.{name}"])
                ema[name] = stored[f"ema.{name}"].clone()
        facts = json.loads((work / "base.json").read_text())
        seen, spent, loss_before = int(facts["images"]), float(facts["seconds"]), float(facts["loss"])
    flow_loss: nn.Module = FlowLoss(model)
    if compiled:
        flow_loss = torch.compile(flow_loss)
    half_precision = bf16_pays(device)
    optimisers = optimisers_of(model)
    rates = [group["lr"] for optimiser in optimisers for group in optimiser.param_groups]
    generator = torch.Generator(device).manual_seed(seen)
    parameters = list(model.parameters())
    averages = [ema[name] for name, _ in model.named_parameters()]
    codec = codec.to(device)
    running = torch.tensor(loss_before, device=device)
    began, saved, step = time.time(), time.time(), 0

    def keep() -> dict[str, float]:
        facts = {"images": seen, "seconds": spent + time.time() - began, "loss": running.item()}
        tensors = {f"model.{name}": parameter for name, parameter in model.named_parameters()}
        store(tensors | {f"ema.{name}": value for name, value in ema.items()}, work / "state.safetensors")
        (work / "base.json").write_text(json.dumps(facts))
        return facts

    # A processor's cache holds a smaller batch better.
    chunk = batch if device.type == "cuda" else min(batch, 64)
    while (done := (spent + time.time() - began) / (60 * minutes)) < 1:
        factor = min(1.0, (step + 1) / 200, (1 - done) / DECAY_SHARE)
        for optimiser, rate in zip(optimisers, rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        for _ in range(batch // chunk):
            images, masks, ids = pool.draw(atlas, torch.randint(len(pool.ids), (chunk,), generator=generator, device=device))
            dropped = torch.rand(chunk, 1, device=device) < CAPTION_DROPOUT
            # Spread evenly over the batch: less noise in the gradient than levels drawn one by one.
            spread = (torch.arange(chunk, device=device) + torch.rand(chunk, device=device)) / chunk
            levels = torch.sigmoid(torch.special.ndtri(spread.clamp(1e-6, 1 - 1e-6)))
            noise = torch.randn(chunk, CHANNELS, LATENT_SIZE, LATENT_SIZE, device=device)
            kept = drawn_tokens(masks) if done < 1 - WHOLE_SHARE else None
            clean = codec.encode(images)
            with torch.autocast(device.type, torch.bfloat16, enabled=half_precision):
                loss = flow_loss(clean, noise, levels, ids.masked_fill(dropped, PAD), kept)
            (loss * chunk / batch).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimiser in optimisers:
            optimiser.step()
        step, seen = step + 1, seen + batch
        with torch.no_grad():
            steps = seen // batch  # of earlier calls too: their average is gone on with
            torch._foreach_lerp_(averages, parameters, 1 - min(EMA_DECAY, (steps + 1) / (steps + 10)))
            running += (loss.detach() - running) * max(0.02, 1 / steps)
        if step % 100 == 0:
            rate = step * batch / (time.time() - began)
            print(f"base: {seen:,} images, {done:.0%} of the time, loss {running.item():.4f}, {rate:.0f} images/s", flush=True)
        if time.time() - saved > SAVE_EVERY:
            keep()
            saved = time.time()
    return keep()
