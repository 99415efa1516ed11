"""What all backends on diffusers pipelines share: loading, pictures ↔ latents, sampling. How noise is added is `diffusers_noise`'s.

A family's file says how captions become conditioning and how its denoiser is called; nothing here knows a family.
"""

from __future__ import annotations

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...sparsedict_core.attachment import Attachment
from ...sparsedict_core.errors import SparseDictError, first_line
from ...sparsedict_core.fingerprint import fingerprint
from ...sparsedict_core.site_discovery import Discovery, discover_sites
from ...sparsedict_core.text_encoders import attach_text_encoders
from . import quantised
from .base import Conditioning, StepCallback
from .diffusers_folder import parts_of, quiet_about_dtype, weights_variant
from .encodings import Encodings, identity_of
from .placement import Placement
from .sharded import is_sharded, shard

#: Tokens of a CLIP text encoder.
CLIP_TOKENS = 77


class DiffusersBackend(ABC):
    """A frozen diffusers pipeline as the trainer sees it.

    `diffusers_noise` has the two ways of adding noise; a family's class gives `encode_text`, `blank_conditioning` and `predict`.
    """

    pipeline_class: str
    component: str
    default_steps: int = 28
    default_guidance: float
    prediction: str
    size_multiple: int
    default_size: int
    most_tokens: int | None = None  # that captions are cut or filled up to, where the tokenizer takes as many
    text_length: int

    def __init__(self, pipeline: Any, device: str | torch.device, dtype: torch.dtype) -> None:
        """`pipeline`'s modules are put into eval and frozen, the denoiser on `device`; their dtype stays as loaded."""
        self.pipeline = pipeline
        self.device, self.dtype = torch.device(device), dtype
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                # Not to `dtype`: some text encoders keep single layers in fp32 on purpose.
                part.eval().requires_grad_(False)
        self.denoiser: nn.Module = getattr(pipeline, self.component)
        self.placement = Placement(self.denoiser, self.device)
        self.text_device = torch.device("cpu")
        self.weights: str | None = None  # what they were made into as they were loaded
        self._fingerprint: str | None = None
        self.encodings = Encodings()
        self.on_text_encoders = 0  # LoRAs; what is encoded with them is not kept
        self._load_text_encoders: Callable[[], dict[str, nn.Module]] = dict
        self.scheduler_config = pipeline.scheduler.config
        self.vae = pipeline.vae
        if dtype == torch.float16 and self.vae.config.get("force_upcast", True):
            self.vae.to(torch.float32)  # such VAEs overflow in fp16 and give black pictures
        self.latent_channels, self.latent_scale = self.codec_shape(self.vae)
        if self.most_tokens is not None:
            tokenizer = getattr(pipeline.tokenizer, "tokenizer", pipeline.tokenizer)  # a processor's own
            self.text_length = min(self.most_tokens, getattr(tokenizer, "model_max_length", self.most_tokens))

    @classmethod
    def codec_shape(cls, vae: Any) -> tuple[int, int]:
        """Channels of the latents, and pixels of a cell's side."""
        return vae.config.latent_channels, 2 ** (len(vae.config.block_out_channels) - 1)

    @classmethod
    def pipeline_kind(cls) -> Any:
        """diffusers' class."""
        import diffusers

        return getattr(diffusers, cls.pipeline_class)

    @cached_property
    def family(self) -> str:
        """By the denoiser's class."""
        return self.watch().family

    def watch(self, wanted: str = "out") -> Discovery:
        """The denoiser's sites of the `wanted` kinds; what nobody wrote down is seen in a step, after which it is known everywhere."""
        return discover_sites(self.denoiser, wanted, self._blank_step)

    @torch.no_grad()
    def _blank_step(self) -> None:
        side = 8 * self.size_multiple // self.latent_scale
        levels = torch.full((1,), 0.5, device=self.device)
        self.predict(torch.zeros(1, self.latent_channels, side, side, device=self.device), levels, self.blank_conditioning(1))

    @classmethod
    def load(
        cls, path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, weights: str | Path | None = None,
        spread: bool = False,
    ) -> DiffusersBackend:
        """From a diffusers folder; nothing is downloaded. `weights`: how they are held (`quantised.PACKAGES`), or a GGUF file of the denoiser.
        `spread`: the denoiser is parted over the processes.

        Raises SparseDictError where the folder is incomplete.
        """
        path = Path(path)
        options: dict[str, Any] = {"torch_dtype": dtype, "local_files_only": True, "variant": weights_variant(path / cls.component)}
        options |= cls.load_options(path)
        # Captions that were encoded before need none of these: 10 GB and more of some families.
        later = [name for name in parts_of(path) if name.startswith("text_encoder") and name not in options]
        if isinstance(weights, str):
            options["quantization_config"] = quantised.quantisation(weights, cls.component, later, torch.device(device), dtype)
        try:
            with quiet_about_dtype():
                given = {cls.component: quantised.gguf_denoiser(weights, cls.denoiser_kind(path), path, cls.component, dtype)} if isinstance(weights, Path) else {}
                pipeline = cls.pipeline_kind().from_pretrained(str(path), **options, **dict.fromkeys(later), **given)
        except (OSError, ValueError, TypeError, KeyError, ImportError, RuntimeError) as error:
            raise SparseDictError(
                f"{path} cannot be loaded as a {cls.pipeline_class} ({first_line(error)}); check that the folder was downloaded in full."
            ) from error
        if spread:
            denoiser = getattr(pipeline, cls.component)
            denoiser.discovery = cls(pipeline, "cpu", dtype).watch()  # afterwards its class is another
            shard(denoiser, torch.device(device))
        backend = cls(pipeline, device, dtype)
        kind = weights if isinstance(weights, str) else ""
        backend.weights = "gguf" if isinstance(weights, Path) else weights
        backend.encodings.model = identity_of([*path.glob("text_encoder*"), *path.glob("tokenizer*"), path / "vae"], cls.__name__, str(dtype) + kind)

        def load_text_encoders() -> dict[str, nn.Module]:
            with quiet_about_dtype():
                whole = cls.pipeline_kind().from_pretrained(str(path), **options, **{cls.component: None, "vae": None})
            return {name: getattr(whole, name) for name in later}

        backend._load_text_encoders = load_text_encoders
        return backend

    @classmethod
    def denoiser_kind(cls, path: Path) -> Any:
        """diffusers' class of the denoiser in a folder."""
        import diffusers

        return getattr(diffusers, json.loads((path / cls.component / "config.json").read_text(encoding="utf-8"))["_class_name"])

    @classmethod
    def load_options(cls, path: Path) -> dict[str, Any]:
        """What else diffusers is given to load `path`."""
        return {}

    # Pictures

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] → latents (B, c, h, w), scaled and shifted as the denoiser expects them.

        The mean of the VAE's distribution: equal pictures have equal latents, so they can be kept.
        """

        def make(places: list[int]) -> dict[str, Tensor]:
            with self.placement.visit(self.vae) as device:
                return {"latents": self.to_latents(images[places].to(device, self.vae.dtype))}

        contents = [picture.float().cpu().numpy().tobytes() for picture in images]
        # The run holds its latents itself.
        return self.encodings.rows("picture", contents, make, remember=False)["latents"].to(self.device, self.dtype)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, c, h, w) → (B, 3, H, W) in [-1, 1]."""
        with self.placement.visit(self.vae) as device:
            return self.to_images(latents.to(device, self.vae.dtype)).clamp(-1, 1).to(self.device, self.dtype)

    def to_latents(self, images: Tensor) -> Tensor:
        """The same, in the VAE's own dtype."""
        scale, shift = self._latent_scaling()
        return (self.vae.encode(images).latent_dist.mode() - shift) * scale

    def to_images(self, latents: Tensor) -> Tensor:
        """The inverse of `to_latents`."""
        scale, shift = self._latent_scaling()
        return self.vae.decode(latents / scale + shift).sample

    def _latent_scaling(self) -> tuple[float, float]:
        config = self.vae.config
        return config.scaling_factor, config.get("shift_factor") or 0.0

    def encode_captions(self, captions: list[str]) -> Conditioning:
        """Tensors with one row a caption."""

        def make(places: list[int]) -> Conditioning:
            with self.placement.visit(*self._text_encoders()) as self.text_device:
                return self.encode_text([captions[place] for place in places])

        if self.on_text_encoders:
            rows = make(list(range(len(captions))))
        else:
            rows = self.encodings.rows("caption", [caption.encode() for caption in captions], make)
        return {name: value.to(self.device) for name, value in rows.items()}

    def attach_text_encoders(self, attachment: Attachment, name: str) -> None:
        """What the attached adapter carries for text encoders, on them as long as it is attached."""
        self._text_encoders()
        attach_text_encoders(self.pipeline, attachment, name)
        self.on_text_encoders += 1

        def gone() -> None:
            self.on_text_encoders -= 1

        attachment.companions.append(gone)

    def keep_encodings(self, folder: Path) -> None:
        """Encoded pictures and captions are read from files in `folder`, and written there, from now on."""
        self.encodings.folder = folder

    @property
    def in_step(self) -> bool:
        """Whether all processes must call the denoiser equally often."""
        return is_sharded(self.denoiser)

    @property
    def recomputes_blocks(self) -> bool:
        """Whether blocks are recomputed in training without being asked to."""
        return self.placement.swapped

    def keep_blocks_on_cpu(self) -> None:
        """The denoiser's blocks wait in the CPU's memory; in training they are recomputed."""
        self.placement.keep_blocks_away()

    def _text_encoders(self) -> list[nn.Module]:
        """Loaded at the first caption that needs them."""
        loaded = self._load_text_encoders()
        self._load_text_encoders = dict
        for name, module in loaded.items():
            self.pipeline.register_modules(**{name: module.eval().requires_grad_(False)})
        return [module for name, module in self.pipeline.components.items() if name.startswith("text_encoder") and isinstance(module, nn.Module)]

    # The family's own

    @abstractmethod
    def encode_text(self, captions: list[str]) -> Conditioning:
        """`encode_captions` by the pipeline's text encoders, which are on `text_device`."""

    @abstractmethod
    def blank_conditioning(self, rows: int) -> Conditioning:
        """What `encode_captions` gives for captions of full length, by shape alone: from the denoiser's config, without a text encoder."""

    @abstractmethod
    def predict(self, noisy: Tensor, levels: Tensor, conditioning: Conditioning) -> Tensor:
        """The denoiser's prediction (B, c, h, w) for noisy (B, c, h, w) at levels (B,); gradients flow."""

    @abstractmethod
    def sample_noise_levels(self, n: int, generator: torch.Generator | None, latent_size: tuple[int, int]) -> Tensor:
        """(n,) in the family's own unit, drawn where `generator` is."""

    @abstractmethod
    def levels_at(self, times: Tensor, latent_size: tuple[int, int], shift: float | None = None) -> Tensor:
        """Levels (n,) at times of the schedule, as `Backend` says."""

    @abstractmethod
    def add_noise(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """x_t (B, c, h, w) in the latents' dtype."""

    @abstractmethod
    def target(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """What `predict` should return, (B, c, h, w) in fp32."""

    @abstractmethod
    def snr(self, levels: Tensor) -> Tensor:
        """Signal-to-noise ratio, (n,)."""

    @abstractmethod
    def levels_of(self, timestep: Tensor, count: int) -> Tensor:
        """The scheduler's timestep () as noise levels (count,)."""

    def quiet_prompts(self) -> list[str]:
        """None of its own: the generic list fits these models."""
        return []

    def unconditional(self, count: int) -> Conditioning:
        """What guidance leads away from, `count` rows."""
        return {key: value.expand(count, *value.shape[1:]) for key, value in self.encode_captions([""]).items()}

    def timestep_options(self, steps: int, latent_size: tuple[int, int]) -> dict[str, Any]:
        """What the scheduler's `set_timesteps` is given beside the number of steps."""
        return {}

    def apply_guidance(self, conditioning: Conditioning, guidance: float) -> tuple[Conditioning, float]:
        """Conditioning, and the strength of classifier-free guidance that is left to do (1 = none)."""
        return conditioning, guidance

    def guided(self, conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
        """Classifier-free guidance of predictions (B, c, h, w)."""
        return unconditional + guidance * (conditional - unconditional)

    # Sampling

    @torch.no_grad()
    def sample(
        self,
        captions: list[str],
        noise: Tensor,
        steps: int | None = None,
        guidance: float | None = None,
        callback: StepCallback | None = None,
    ) -> Tensor:
        """Latents (B, c, h, w) from noise of that shape, one row a caption, by the pipeline's own scheduler.

        `callback(step, steps)` after each step. None takes the family's default.
        """
        steps, guidance = steps or self.default_steps, self.default_guidance if guidance is None else guidance
        # A scheduler keeps a state while it runs: each run has its own.
        scheduler = type(self.pipeline.scheduler).from_config(self.scheduler_config)
        scheduler.set_timesteps(steps, device=self.device, **self.timestep_options(steps, (noise.shape[-2], noise.shape[-1])))
        step_options: dict[str, Any] = {}
        if "generator" in inspect.signature(scheduler.step).parameters:
            # Schedulers that add noise on the way: the same start then still gives the same picture.
            step_options["generator"] = torch.Generator().manual_seed(0)

        count = len(captions)
        conditioning, guidance = self.apply_guidance(self.encode_captions(captions), guidance)
        guided = guidance != 1.0
        if guided:
            empty, _ = self.apply_guidance(self.unconditional(count), guidance)
            conditioning = {key: torch.cat([value, empty[key]]) for key, value in conditioning.items()}
        # fp32 between the steps: small differences would be lost in half precision.
        x = noise.to(self.device, torch.float32) * getattr(scheduler, "init_noise_sigma", 1.0)
        for index, timestep in enumerate(scheduler.timesteps):
            scaled = scheduler.scale_model_input(x, timestep) if hasattr(scheduler, "scale_model_input") else x
            doubled = torch.cat([scaled, scaled]) if guided else scaled
            predicted = self.predict(doubled, self.levels_of(timestep, len(doubled)), conditioning).float()
            if guided:
                with_prompt, without = predicted.chunk(2)
                predicted = self.guided(with_prompt, without, guidance)
            x = scheduler.step(predicted, timestep, x, **step_options).prev_sample
            if callback is not None:
                callback(index + 1, len(scheduler.timesteps))
        return x.to(self.dtype)

    def fingerprint(self) -> str:
        if not is_sharded(self.denoiser):
            return fingerprint(self.denoiser, discover_sites(self.denoiser).sites, self.component)
        if self._fingerprint is None:  # all processes must be asked for it together
            self._fingerprint = fingerprint(self.denoiser, discover_sites(self.denoiser).sites, self.component)
        return self._fingerprint


def filled_up(rows: Tensor, length: int) -> Tensor:
    """(B, n, ...) cut to `length` or filled up with zeros."""
    if rows.shape[1] >= length:
        return rows[:, :length]
    return torch.cat([rows, rows.new_zeros(len(rows), length - rows.shape[1], *rows.shape[2:])], dim=1)
