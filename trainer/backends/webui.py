"""The SD1.5, SD2 or SDXL checkpoint that a web UI has loaded, as a backend: trained in place, with the host's own UNet, text encoders and VAE.

AUTOMATIC1111 and the Forges differ in where they keep the parts; nothing else is asked of them. Everything runs within `session()`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ...host_shared.alias_tree import AliasTree
from ...sparsedict_core.errors import DataError, TrainingError
from ...sparsedict_core.fingerprint import fingerprint
from ...webui_host.names import unet_tree
from ...webui_host.network import diffusion_model
from .base import Conditioning, StepCallback
from .comfyui_weights import OutOfPlace, normalise

STEPS = 24
TOKENS = 77  # of one part of a prompt, with its two ends
SIZES = {"sd15": 512, "sd2": 768, "sdxl": 1024}


class WebuiBackend:
    """A frozen base as the host holds it. Conditioning is `crossattn` (B, 77, c), and for SDXL `vector` (B, d)."""

    component = "unet"
    latent_channels = 4
    latent_scale = 8

    def __init__(self, sd_model: Any) -> None:
        """Raises SiteError or TrainingError for a model that cannot be trained here."""
        self.sd_model = sd_model
        self.network: nn.Module = diffusion_model(sd_model)
        self.denoiser: AliasTree = unet_tree(self.network)
        self.family = self.denoiser.discovery.family
        self.patcher = getattr(getattr(sd_model, "forge_objects", None), "unet", None)
        weight = next(self.network.parameters())
        self.device, self.dtype = torch.device(self.patcher.load_device if self.patcher else weight.device), torch.float32
        if self.patcher is None:
            kind, self.alphas = sd_model.parameterization, sd_model.alphas_cumprod.float().cpu()
        else:
            predictor = self.patcher.model.predictor
            kind, self.alphas = predictor.prediction_type, 1 / (1 + predictor.sigmas.float().cpu().square())
        known = {"eps": "epsilon", "epsilon": "epsilon", "v": "v", "v_prediction": "v"}
        if kind not in known or weight.shape[1] == 0:
            raise TrainingError(f"a model that predicts {kind} cannot be trained here; load an SD1.5, SD2 or SDXL checkpoint.")
        self.prediction = known[kind]
        self.size_multiple = self.latent_scale * 2 ** self.denoiser.halvings
        self.default_size, self.default_guidance = SIZES[self.family], 7.0

    # -- the host's state

    @contextlib.contextmanager
    def session(self) -> Iterator[WebuiBackend]:
        """Outside inference mode, weights frozen and such that autograd can save them; the host as it was afterwards."""
        # Blocks that compute themselves anew for the gradient ask for gradients of frozen weights, which fails.
        recomputing = [(module, name) for module in self.network.modules() for name in ("checkpoint", "use_checkpoint") if getattr(module, name, None) is True]
        with torch.inference_mode(False), torch.enable_grad():
            self._load()
            normalise(self.network)
            for module, name in recomputing:
                setattr(module, name, False)
            try:
                yield self
            finally:
                for module, name in recomputing:
                    setattr(module, name, True)

    def _load(self) -> None:
        """The Forges move parts away for what runs next."""
        if self.patcher is not None:
            from backend import memory_management

            memory_management.load_model_gpu(self.patcher)

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())

    # -- pictures and captions

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        pixels = images.to(self.device, torch.float32)
        encoded = self.sd_model.encode_first_stage(pixels)
        if self.patcher is None:
            encoded = self.sd_model.get_first_stage_encoding(encoded)
        return encoded.detach().clone().float()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        return self.sd_model.decode_first_stage(latents.to(self.device, torch.float32)).detach().clone().float()

    @torch.no_grad()
    def encode_captions(self, captions: list[str]) -> Conditioning:
        from modules.prompt_parser import SdConditioning

        rows: list[dict[str, Tensor]] = []
        for caption in captions:
            told = self.sd_model.get_learned_conditioning(SdConditioning([caption], width=self.default_size, height=self.default_size))
            row = told if isinstance(told, dict) else {"crossattn": told}
            if row["crossattn"].shape[1] != TOKENS:
                raise DataError(f"the caption {caption!r:.80} is too long; use at most {TOKENS - 2} tokens, about 50 words.")
            rows.append(row)
        keys = [key for key in ("crossattn", "vector") if key in rows[0]]
        return {key: torch.cat([row[key] for row in rows]).detach().clone().float() for key in keys}

    # -- noise: x_t = √ᾱ·x0 + √(1−ᾱ)·noise at whole timesteps

    def sample_noise_levels(self, n: int, generator: torch.Generator, latent_size: tuple[int, int]) -> Tensor:
        return torch.randint(len(self.alphas), (n,), generator=generator)

    def levels_at(self, times: Tensor, latent_size: tuple[int, int], shift: float | None = None) -> Tensor:
        shift = 1.0 if shift is None else shift
        return (shift * times / (1 + (shift - 1) * times) * len(self.alphas)).long().clamp(max=len(self.alphas) - 1)

    def _parts(self, levels: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alphas = self.alphas[levels.cpu().long()].view(-1, 1, 1, 1).to(like.device)
        return alphas.sqrt(), (1 - alphas).sqrt()

    def add_noise(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        signal, sigma = self._parts(levels, latents)
        return signal * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        signal, sigma = self._parts(levels, latents)
        return noise if self.prediction == "epsilon" else signal * noise - sigma * latents

    def snr(self, levels: Tensor) -> Tensor:
        alphas = self.alphas[levels.cpu().long()]
        return alphas / (1 - alphas)

    def predict(self, noisy: Tensor, levels: Tensor, conditioning: Conditioning) -> Tensor:
        self._load()
        told = {key: value.to(self.device) for key, value in conditioning.items()}
        more = {"y": told["vector"]} if "vector" in told else {}
        # The Forges' blocks add to what autograd has saved.
        with self._precision(), OutOfPlace() if self.patcher is not None else contextlib.nullcontext():
            return self.network(noisy.to(self.device, torch.float32), levels.to(self.device).float(), context=told["crossattn"], **more).float()

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        """Hosts keep half-precision weights on accelerators; gradients of a mean over a picture vanish in fp16."""
        if self.device.type == "cpu":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    # -- sampling

    @torch.no_grad()
    def sample(
        self, captions: list[str], noise: Tensor, steps: int | None = None, guidance: float | None = None, callback: StepCallback | None = None
    ) -> Tensor:
        """DDIM without noise on the way."""
        steps, guidance = steps or STEPS, self.default_guidance if guidance is None else guidance
        told, empty = self.encode_captions(captions), self.encode_captions([""])
        x, count = noise.to(self.device, torch.float32), len(captions)
        levels = torch.linspace(len(self.alphas) - 1, 0, steps).long()
        for index, level in enumerate(levels):
            at = level.repeat(count)
            predicted = self.predict(x, at, told)
            if guidance != 1:
                without = self.predict(x, at, {key: value.expand(count, *value.shape[1:]) for key, value in empty.items()})
                predicted = without + guidance * (predicted - without)
            signal, sigma = self._parts(at, x)
            clean = (x - sigma * predicted) / signal if self.prediction == "epsilon" else signal * x - sigma * predicted
            added = (x - signal * clean) / sigma
            x = clean if index == steps - 1 else self.add_noise(clean, added, levels[index + 1].repeat(count))
            if callback is not None:
                callback(index + 1, steps)
        return x

    def fingerprint(self) -> str:
        return fingerprint(self.denoiser, self.denoiser.discovery.sites, self.component)

    def quiet_prompts(self) -> list[str]:
        return []
