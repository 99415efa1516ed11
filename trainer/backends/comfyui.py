"""The model that ComfyUI has loaded, as a backend: trained in place, with the host's own forward, sampler, CLIP and VAE.

Nothing here knows a family beyond a table of usual sizes: how noise is added, what is predicted and what the denoiser is told
come from the host's `model_sampling` and `extra_conds`. Everything runs within `session()`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from ...comfyui_host.sites import HostSites, alias_tree, host_family, host_kind, host_sites
from ...sparsedict_core.errors import DataError, TrainingError
from ...sparsedict_core.fingerprint import fingerprint
from ..callbacks import Callbacks
from ..config import TrainConfig
from ..data import ConceptData
from ..loop import train
from ..memory import explain_out_of_memory
from ..result import TrainResult
from .base import Conditioning, StepCallback
from .comfyui_captions import Captions
from .comfyui_conditioning import entry, same_shapes
from .comfyui_facts import USUAL, knows_few_words, latent_scale, patch_size, prediction_of
from .comfyui_gradients import kernels_with_gradients
from .comfyui_noise import HostNoise
from .comfyui_weights import OutOfPlace, normalise, outer_blocks

STEPS = 24
#: Blocks that add to their inputs in place, which autograd must not see.
MUTATING_BLOCKS = ("DoubleStreamBlock", "SingleStreamBlock")


class ComfyBackend(HostNoise):
    """A frozen base model as the host holds it. Conditioning is `caption` (B,): numbers of what `encode_captions` has kept.

    Latents are (B, c, h, w); a video model sees them as one frame. Raises SiteError for a model without known sites and
    TrainingError for one that makes no pictures.
    """

    def __init__(self, patcher: Any, clip: Any = None, vae: Any = None, steps: int | None = None, guidance: float | None = None) -> None:
        """`patcher` is a ModelPatcher, cloned here; `clip` and `vae` the host's, where there is something to encode or to show."""
        import comfy.model_management

        self.management = comfy.model_management
        self.interruptions = (comfy.model_management.InterruptProcessingException,)
        self.patcher, self.clip, self.vae = patcher.clone(), clip, vae
        self.model = self.patcher.model
        self.family = host_family(self.patcher)
        self.device, self.dtype = torch.device(self.patcher.load_device), torch.float32
        self.model_sampling = self.patcher.get_model_object("model_sampling")
        self.latent_format = self.patcher.get_model_object("latent_format")
        self.prediction = prediction_of(self.model_sampling)
        self._frames = getattr(self.latent_format, "latent_dimensions", 2) == 3
        if getattr(self.latent_format, "latent_dimensions", 2) not in (2, 3):
            raise TrainingError(f"a {type(self.model).__name__} makes no pictures; connect a model of pictures or videos.")
        self.latent_channels: int = self.latent_format.latent_channels
        self.latent_scale = latent_scale(self.vae, self.latent_format)
        network = self.model.diffusion_model
        patch = patch_size(network)
        self.size_multiple = self.latent_scale * patch
        size, usual_guidance = USUAL.get(self.family, (512, 4.0))
        # Some models hold a table of positions, and know no larger picture than that.
        largest = getattr(network, "pos_embed_max_size", None)
        limit = self.size_multiple * largest if isinstance(largest, int) else None
        self.fixed_size = limit is not None and limit <= size
        self.default_size = min(size, limit) if limit is not None else size
        self.steps, self.default_guidance = steps or STEPS, usual_guidance if guidance is None else guidance
        self._demo = knows_few_words(clip)
        if self._demo:
            from ...demo_model.pipeline import DEFAULT_GUIDANCE, DEFAULT_STEPS

            self.steps, self.default_guidance = steps or DEFAULT_STEPS, DEFAULT_GUIDANCE if guidance is None else guidance
        self.captions = Captions(self.model, clip, self.latent_scale, self._moved)
        self._ready = False
        self._config: TrainConfig | None = None
        self._wrapped: list[nn.Module] = []
        # Of a model that nobody wrote down it is not known, so it counts as one of these.
        self._out_of_place = self.family == host_kind(self.patcher) or any(type(module).__name__ in MUTATING_BLOCKS for module in network.modules())
        self.checkpointing = False

    # -- sites

    @cached_property
    def sites(self) -> HostSites:
        """The model's sites. One that nobody wrote down makes a step for it, for which a caption or a conditioning must be there."""
        return host_sites(self.patcher, self._step)

    @cached_property
    def denoiser(self) -> nn.Module:
        return alias_tree(self.sites)

    @property
    def component(self) -> str:
        return self.sites.component

    def _step(self) -> None:
        side = 4 * self.size_multiple // self.latent_scale
        noise = torch.zeros(1, self.latent_channels, side, side)
        with self.session():
            level = self.sample_noise_levels(1, torch.Generator().manual_seed(0), (side, side))
            self.predict(noise, level, self.encode_captions([""]))

    # -- the host's state

    @contextlib.contextmanager
    def session(self, config: TrainConfig | None = None) -> Iterator[ComfyBackend]:
        """What training needs of the host, and the host as it was afterwards: outside inference mode, weights loaded and frozen.

        With `config`, as much memory is kept free as its steps may need.
        """
        management = self.management
        self._config = config
        known = hasattr(management, "in_training")  # newer hosts choose operations that have gradients by it
        before = getattr(management, "in_training", False)
        if self.patcher.model_dtype() == torch.float16 or getattr(self.model, "manual_cast_dtype", None) == torch.float16:
            # Gradients of a mean over a picture vanish in fp16.
            better = torch.bfloat16 if management.should_use_bf16(self.device) else torch.float32
            self.patcher.set_model_compute_dtype(better)
        with torch.inference_mode(False), torch.enable_grad(), kernels_with_gradients():
            try:
                if known:
                    management.in_training = True
                self.make_ready()
                yield self
            finally:
                if known:
                    management.in_training = before
                self.disable_gradient_checkpointing()
                self.patcher.cleanup()
                self._ready = False
                self.captions.forget_shapes()

    def make_ready(self) -> None:
        """Load the weights where they are used, and make them such that autograd can save them. Cheap if nothing was loaded since."""
        if self._ready:
            return
        self.management.load_models_gpu([self.patcher], memory_required=self._reserve())
        normalise(self.model)
        self.patcher.pre_run()
        self._ready = True

    def _moved(self) -> None:
        """The host may move the denoiser away for what it runs next."""
        self._ready = False

    def _reserve(self) -> float:
        """Bytes that a step's activations may take beside the weights: a guess from the host's own for sampling."""
        if self.device.type == "cpu":
            return 0
        config = self._config
        side = ((config.resolution if config else None) or self.default_size) // self.latent_scale
        rows = config.batch_size // config.gradient_accumulation if config else 1
        one_pass = self.model.memory_required([rows, self.latent_channels, *([1] if self._frames else []), side, side])
        recomputed = config is not None and config.gradient_checkpointing
        sites = 0 if "sites" not in self.__dict__ else len(self.sites.names)  # not yet seen in the step that shows them
        total = self.management.get_total_memory(self.device)
        return min(one_pass * (2 if recomputed else max(4, sites // 2)), 0.6 * total)

    def partly_loaded(self) -> bool:
        """Whether weights come to the device at each use: autograd would keep every copy but for recomputed blocks."""
        return bool(getattr(self.model, "model_lowvram", False))

    def casts_weights(self) -> bool:
        """Whether weights are cast at each use on an accelerator: autograd would keep every copy but for recomputed blocks."""
        return self.device.type != "cpu" and getattr(self.model, "manual_cast_dtype", None) is not None

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    # -- pictures

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        if self.vae is None:
            raise TrainingError("there is no VAE to encode the pictures with; connect the checkpoint's VAE, or give LATENTs in place of pictures.")
        pixels = ((images.float().clamp(-1, 1) + 1) / 2).movedim(1, -1).cpu()
        self._moved()
        # One by one: a video VAE takes a batch for the frames of one video.
        return torch.cat([self.latents_in(self.vae.encode(picture[None])) for picture in pixels])

    def latents_in(self, samples: Tensor) -> Tensor:
        """The host's LATENT samples (B, c[, 1], h, w) → latents (B, c, h, w) as the denoiser sees them.

        Raises DataError for several frames or other channels.
        """
        samples = samples.detach().clone().float()
        if samples.ndim == 5:
            if samples.shape[2] != 1:
                raise DataError(f"a latent holds {samples.shape[2]} frames; give single pictures.")
            samples = samples[:, :, 0]
        if samples.shape[1] != self.latent_channels:
            raise DataError(f"the latents have {samples.shape[1]} channels, this model has {self.latent_channels}; use the VAE that belongs to the model.")
        return self._outer(self.model.process_latent_in(self._inner(samples)))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        if self.vae is None:
            raise TrainingError("there is no VAE to show previews with; connect the checkpoint's VAE, or leave the preview prompts empty.")
        self._moved()
        pixels = self.vae.decode(self.model.process_latent_out(self._inner(latents.float())))
        if pixels.ndim == 5:
            pixels = pixels[:, 0]
        return pixels.movedim(-1, 1).float() * 2 - 1

    def _inner(self, latents: Tensor) -> Tensor:
        return latents.unsqueeze(2) if self._frames else latents

    def _outer(self, latents: Tensor) -> Tensor:
        return latents.squeeze(2) if self._frames else latents

    # -- captions

    def encode_captions(self, captions: list[str]) -> Conditioning:
        return {"caption": torch.tensor([self.captions.number(caption) for caption in captions], dtype=torch.long)}

    def register(self, caption: str, conditioning: list) -> None:
        """Let `caption` stand for the first entry of a CONDITIONING value."""
        self.captions.register(caption, conditioning)

    # -- denoising

    def predict(self, noisy: Tensor, levels: Tensor, conditioning: Conditioning) -> Tensor:
        self.make_ready()
        x = self._inner(noisy.to(self.device, torch.float32))
        sigma = levels.to(self.device, torch.float32)
        conditions = self.captions.conditions(conditioning["caption"].tolist(), x.shape)
        outputs: list[Any] = []
        # The host returns the clean picture; the denoiser's own output is exact, also where the noise is all but gone.
        handle = self.model.diffusion_model.register_forward_hook(lambda module, args, output: outputs.append(output))
        try:
            with self._mode():
                clean = self.model.apply_model(x, sigma, transformer_options=self._options(sigma), **conditions)
        finally:
            handle.remove()
        if len(outputs) == 1 and isinstance(outputs[0], Tensor) and outputs[0].shape == x.shape:
            return self._outer(outputs[0].float())
        return self._outer(self.output_for(clean, x, sigma))

    def _options(self, sigma: Tensor) -> dict[str, Any]:
        """The transformer options that a sampler would give: attention patches and wrappers of the MODEL count in training too."""
        import comfy.model_patcher
        import comfy.patcher_extension

        options = comfy.model_patcher.create_model_options_clone(self.patcher.model_options).setdefault("transformer_options", {})
        for kind in ("wrappers", "callbacks"):
            comfy.patcher_extension.merge_nested_dicts(options.setdefault(kind, {}), getattr(self.patcher, kind), copy_dict1=False)
        return {**options, "cond_or_uncond": [0], "uuids": [], "sigmas": sigma}

    # -- sampling

    @torch.no_grad()
    def sample(
        self, captions: list[str], noise: Tensor, steps: int | None = None, guidance: float | None = None, callback: StepCallback | None = None
    ) -> Tensor:
        import comfy.sample
        import comfy.samplers

        steps, guidance = steps or self.steps, self.default_guidance if guidance is None else guidance
        if self.prediction == "flow":
            sigmas = self.flow_sigmas(torch.linspace(1, 0, steps + 1))
        else:
            sigmas = comfy.samplers.calculate_sigmas(self.model_sampling, "normal", steps)
        sampler = comfy.samplers.sampler_object("euler")
        numbers = [self.captions.number(caption) for caption in captions]
        empty = self.captions.number("") if guidance != 1.0 else 0
        rows: list[Tensor] = [torch.empty(0)] * len(captions)
        texts = self.captions.encoded
        groups = same_shapes([texts[number] for number in numbers])
        for done, group in enumerate(groups):

            def after_step(step: int, denoised: Tensor, x: Tensor, total: int, done: int = done) -> None:
                if callback is not None:
                    callback(done * steps + step + 1, len(groups) * steps)

            start = self._inner(noise[group].float()).cpu()
            positive, negative = entry([texts[numbers[i]] for i in group]), entry([texts[empty]])
            self._moved()
            latents = comfy.sample.sample_custom(
                self.patcher, start, guidance, sampler, sigmas, positive, negative, torch.zeros_like(start), callback=after_step, disable_pbar=True, seed=0
            )
            latents = self._outer(self.model.process_latent_in(latents.float()))
            for place, row in zip(group, latents, strict=True):
                rows[place] = row
        return torch.stack(rows).to(self.device)

    def quiet_prompts(self) -> list[str]:
        """The embedded base's own; the generic list fits other models."""
        if not self._demo:
            return []
        from .demo import demo_quiet_prompts

        return demo_quiet_prompts()

    def spare_words(self) -> list[str]:
        from ...demo_model.vocabulary import PLACEHOLDERS

        return list(PLACEHOLDERS) if self._demo else []

    def sampling_key(self) -> str:
        """What samples depend on besides the weights: the schedule, the guidance, and how the text is encoded."""
        sampling = self.model_sampling
        text = self.captions.encoded[self.captions.number("")]["cross_attn"]
        digest = hashlib.sha256(b"" if text is None else text.float().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]
        shift = [getattr(sampling, name, None) for name in ("shift", "multiplier", "zsnr")]
        return json.dumps([self.prediction, shift, self.steps, self.default_guidance, digest, sorted(self.patcher.patches)], default=str)

    def fingerprint(self) -> str:
        return fingerprint(self.denoiser, self.sites.names, self.component)

    # -- recomputed blocks

    @property
    def is_gradient_checkpointing(self) -> bool:
        return self.checkpointing

    def enable_gradient_checkpointing(self) -> None:
        """Keep a block's input only, and run the block again in the backward."""
        self.checkpointing = True
        for block in outer_blocks(self.model.diffusion_model):
            block.forward = self._recomputed(block.forward)
            self._wrapped.append(block)

    def disable_gradient_checkpointing(self) -> None:
        self.checkpointing = False
        for block in self._wrapped:
            block.__dict__.pop("forward", None)
        self._wrapped.clear()

    def _recomputed(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(args: tuple, kwargs: dict[str, Any]) -> Any:
            # A bare `x.addcmul_(…)` would change what the second run begins with.
            own = [each.clone() if number == 0 and isinstance(each, Tensor) else each for number, each in enumerate(args)]
            with self._mode():  # the second run may be in a thread of autograd's own
                return forward(*own, **kwargs)

        def recomputed(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            return torch.utils.checkpoint.checkpoint(run, args, kwargs, use_reentrant=False)

        return recomputed

    def _mode(self) -> contextlib.AbstractContextManager:
        if torch.is_grad_enabled() and (self._out_of_place or self.checkpointing):
            return OutOfPlace()
        return contextlib.nullcontext()


@explain_out_of_memory
def train_in_host(config: TrainConfig, backend: ComfyBackend, data: Callable[[], ConceptData], callbacks: Callbacks) -> TrainResult:
    """`train` within the backend's session; `data` is made there, as the host's tensors must be copied outside inference mode.

    Raises what `train` raises; out of memory is explained also where loading the model ran out of it.
    """
    with backend.session(config):
        if backend.partly_loaded() and not config.gradient_checkpointing:
            config = dataclasses.replace(config, gradient_checkpointing=True)
            callbacks.on_warning("the model does not fit into the device's memory as a whole: its blocks are computed twice, to keep no copies.")
        return train(config, backend, data(), callbacks)
