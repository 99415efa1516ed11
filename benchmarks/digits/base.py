"""A small class-conditional flow-matching transformer for 8×8 digits, trained here, behind the trainer's interface to a model."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from ...sparsedict_core.atomic_write import write_atomically
from ...sparsedict_core.fingerprint import fingerprint
from ...sparsedict_core.site import SiteName
from ...sparsedict_core.site_discovery import Discovery
from ...trainer.backends.base import Conditioning, StepCallback
from ...trainer.backends.flow import StraightFlow

SIDE, PATCH, CLASSES = 8, 2, 10
TOKENS = (SIDE // PATCH) ** 2
WIDTH, HEADS, LAYERS = 64, 4, 4
SAMPLING_STEPS, GUIDANCE = 12, 2.0
TRAINING_STEPS, BATCH, RATE = 2000, 64, 2e-3
LABEL_DROPOUT = 0.1  # rows that learn without their class, for the guidance
EMA = 0.995


class Attention(nn.Module):
    """Self attention; `to_out` is the site."""

    def __init__(self) -> None:
        super().__init__()
        self.to_qkv, self.to_out = nn.Linear(WIDTH, 3 * WIDTH), nn.ModuleList([nn.Linear(WIDTH, WIDTH)])

    def forward(self, x: Tensor) -> Tensor:
        """x (B, tokens, WIDTH), as the result."""
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.to_qkv(x).chunk(3, -1))
        return self.to_out[0](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))


class Block(nn.Module):
    """Attention and an MLP, each scaled, shifted and gated by the time and the class."""

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.norm = Attention(), nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
        self.modulation = nn.Linear(WIDTH, 6 * WIDTH)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, tokens, WIDTH); told (B, WIDTH)."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(F.silu(condition))[:, None].chunk(6, -1)
        x = x + gate_a * self.attn(self.norm(x) * (1 + scale_a) + shift_a)
        return x + gate_m * self.mlp(self.norm(x) * (1 + scale_m) + shift_m)


class DigitsTransformer(nn.Module):
    """Patches and one token for the class; predicts noise − picture."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.places = nn.Linear(PATCH**2, WIDTH), nn.Parameter(0.02 * torch.randn(TOKENS + 1, WIDTH))
        self.labels = nn.Embedding(CLASSES + 1, WIDTH)  # the last one: no class
        self.time = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, PATCH**2)
        self.discovery = Discovery("digits", "transformer", [SiteName(f"transformer.blocks.{i}.attn.to_out.0", i) for i in range(LAYERS)])

    def forward(self, noisy: Tensor, levels: Tensor, labels: Tensor) -> Tensor:
        """noisy (B, 1, 8, 8), levels (B,) in (0, 1), labels (B,) → (B, 1, 8, 8)."""
        angles = levels[:, None] * torch.exp(torch.linspace(0, math.log(1000), WIDTH // 2))
        label = self.labels(labels)
        condition = self.time(torch.cat([angles.sin(), angles.cos()], -1)) + label
        x = torch.cat([label[:, None], self.patches(F.unfold(noisy, PATCH, stride=PATCH).transpose(1, 2))], 1) + self.places
        for block in self.blocks:
            x = block(x, condition)
        return F.fold(self.out(self.norm(x[:, 1:])).transpose(1, 2), SIDE, PATCH, stride=PATCH)


class DigitsBackend(StraightFlow):
    """The trainer's Backend. A caption is a digit, or empty for no class; a latent is the picture itself."""

    family, component, prediction = "digits", "transformer", "flow"
    latent_channels, latent_scale, size_multiple = 1, 1, SIDE
    default_size, default_guidance = SIDE, GUIDANCE
    fixed_size = True
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, denoiser: DigitsTransformer) -> None:
        self.denoiser: nn.Module = denoiser.eval().requires_grad_(False)

    def encode_images(self, images: Tensor) -> Tensor:
        return images.mean(1, keepdim=True)

    def encode_captions(self, captions: list[str]) -> Conditioning:
        return {"label": torch.tensor([int(caption) if caption else CLASSES for caption in captions])}

    def predict(self, noisy: Tensor, levels: Tensor, conditioning: Conditioning) -> Tensor:
        return self.denoiser(noisy, levels, conditioning["label"])

    @torch.no_grad()
    def sample(
        self, captions: list[str], noise: Tensor, steps: int | None = None, guidance: float | None = None, callback: StepCallback | None = None
    ) -> Tensor:
        """Euler steps with classifier-free guidance."""
        steps, scale = steps or SAMPLING_STEPS, GUIDANCE if guidance is None else guidance
        labels = self.encode_captions([*captions, *[""] * len(captions)])
        levels, x = torch.linspace(1, 0, steps + 1).tolist(), noise
        for step in range(steps):
            conditional, unconditional = self.predict(torch.cat([x, x]), torch.full((2 * len(x),), levels[step]), labels).chunk(2)
            x = x + (levels[step + 1] - levels[step]) * (unconditional + scale * (conditional - unconditional))
            if callback is not None:
                callback(step + 1, steps)
        return x

    def decode(self, latents: Tensor) -> Tensor:
        return latents.clamp(-1, 1).expand(-1, 3, -1, -1)

    def fingerprint(self) -> str:
        assert isinstance(self.denoiser, DigitsTransformer)
        return fingerprint(self.denoiser, self.denoiser.discovery.sites, self.component)

    def quiet_prompts(self) -> list[str]:
        return [str(digit) for digit in range(CLASSES)]


def train_base(images: Tensor, labels: Tensor, steps: int = TRAINING_STEPS, progress: Callable[[int, float], None] | None = None) -> DigitsTransformer:
    """A base for images (N, 1, 8, 8) in [-1, 1] with labels (N,); the same at every time on one machine."""
    torch.manual_seed(0)
    model, generator = DigitsTransformer(), torch.Generator().manual_seed(0)
    backend, parameters = DigitsBackend(model), list(model.parameters())
    average = [p.detach().clone() for p in parameters]
    model.train().requires_grad_(True)
    optimiser = torch.optim.Adam(parameters, lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        rows = torch.randint(len(images), (BATCH,), generator=generator)
        noise, levels = torch.randn(BATCH, 1, SIDE, SIDE, generator=generator), backend.sample_noise_levels(BATCH, generator, (SIDE, SIDE))
        dropped = torch.rand(BATCH, generator=generator) < LABEL_DROPOUT
        conditioning = {"label": labels[rows].masked_fill(dropped, CLASSES)}
        loss = (backend.predict(backend.add_noise(images[rows], noise, levels), levels, conditioning) - backend.target(images[rows], noise, levels)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, [p.detach() for p in parameters], max(1 - EMA, 1 / (1 + step)))
        if progress is not None and (step + 1) % 250 == 0:
            progress(step + 1, float(loss))
    with torch.no_grad():
        torch._foreach_copy_(parameters, average)
    return model


def open_base(images: Tensor, labels: Tensor, cache: Path, steps: int = TRAINING_STEPS, say: Callable[[str], None] = print) -> DigitsBackend:
    """The base from the cache folder, or trained now and kept there."""
    path = cache / f"digits-base-{WIDTH}x{LAYERS}-{steps}.safetensors"
    if path.exists():
        model = DigitsTransformer()
        model.load_state_dict(load_file(path))
    else:
        say(f"training the base on {len(images)} digits, {steps} steps")
        model = train_base(images, labels, steps, lambda step, loss: say(f"  {step}: {loss:.4f}"))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, to_bytes(model.state_dict()))
    return DigitsBackend(model)
