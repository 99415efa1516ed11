"""What a base model takes of a card's memory, from its shapes: one training step is run on fake tensors, which hold nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.config import AdapterConfig
from ..sparsedict_core.errors import SparseDictError
from .backends.diffusers_common import DiffusersBackend
from .backends.full_sizes import FULL_SIZES
from .backends.open_diffusers import backend_class, pipeline_name
from .batches import Batch
from .config import TrainConfig
from .forward import noise_loss
from .peak import PeakMemory
from .policy import Footprint

#: Adapter, gradient and Adam's two moments, all fp32.
COPIES = 4
#: Tokens that a tokenizer without a limit of its own takes.
LONGEST_TEXT = 512


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks that a denoiser is a row of, the innermost where blocks hold blocks: what is recomputed, or kept elsewhere, as one."""
    names = {name for name in getattr(model, "_no_split_modules", None) or [] if "Block" in name}
    found = [module for module in model.modules() if type(module).__name__ in names]
    return [block for block in found if not any(type(inner).__name__ in names for inner in block.modules() if inner is not block)]


def footprint_of(model: str | Path, side: int | None = None, config: AdapterConfig | None = None, dtype: torch.dtype = torch.bfloat16) -> Footprint:
    """The footprint of a diffusers folder or of a published model by name, at its own size unless `side` says otherwise.

    No weight is read, and a folder needs none. Raises SparseDictError for what is neither.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with floats_as(dtype), fake:
        pipeline, text = by_name(str(model)) if str(model) in FULL_SIZES else of_folder(Path(model))
    # Outside the mode, as schedulers look at their numbers.
    backend = backend_class(pipeline.name, Path(model))(pipeline, "cpu", dtype)
    return measured(backend, side or backend.default_size, text, config or AdapterConfig(), fake)


@contextmanager
def floats_as(dtype: torch.dtype) -> Iterator[None]:
    """What tensors of floating point are made as within the block, where nothing else is said."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class ModelShapes:
    """In the place of a pipeline: a denoiser and a VAE without weights, and what backends ask of the rest."""

    def __init__(self, name: str, component: str, denoiser: nn.Module, vae: nn.Module, scheduler: dict[str, Any] | None = None) -> None:
        from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

        kind = DDPMScheduler if component == "unet" else FlowMatchEulerDiscreteScheduler
        self.name, self.vae, self.components = name, vae, {}
        self.config = SimpleNamespace(force_zeros_for_empty_prompt=False)
        self.tokenizer = self.tokenizer_2 = self.tokenizer_3 = SimpleNamespace(model_max_length=LONGEST_TEXT)
        with unfaked():
            self.scheduler = kind.from_config(scheduler) if scheduler else kind()
        setattr(self, component, denoiser)


def by_name(name: str) -> tuple[ModelShapes, int]:
    """A published model's shapes, and the number of its text encoders' parameters."""
    import diffusers

    size = FULL_SIZES[name]
    denoiser = getattr(diffusers, size.denoiser)(**size.config)
    vae = getattr(diffusers, size.vae)(**size.vae_config)
    return ModelShapes(size.pipeline, component_of(size.pipeline), denoiser, vae), int(size.text)


def of_folder(folder: Path) -> tuple[ModelShapes, int]:
    """The same from the configs of a diffusers folder."""
    import diffusers

    name = pipeline_name(folder)
    component = backend_class(name, folder).component
    parts = []
    for part in (component, "vae"):
        config = read_config(folder / part / "config.json")
        kind = getattr(diffusers, str(config.get("_class_name")), None)
        if kind is None:
            raise SparseDictError(f"{folder / part / 'config.json'} names no class of diffusers; download the model again.")
        parts.append(kind.from_config(config))
    text = sum(text_parameters(path) for path in sorted(folder.glob("text_encoder*")))
    scheduler = read_config(folder / "scheduler" / "scheduler_config.json")
    shapes = ModelShapes(name, component, *parts, scheduler)
    for path in folder.glob("tokenizer*/tokenizer_config.json"):
        setattr(shapes, path.parent.name, SimpleNamespace(model_max_length=read_config(path).get("model_max_length", LONGEST_TEXT)))
    return shapes, text


def component_of(pipeline: str) -> str:
    return backend_class(pipeline, Path(pipeline)).component


def read_config(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise SparseDictError(f"{path} cannot be read ({type(error).__name__}); download the model's small files, its weights are not needed.") from error


def text_parameters(folder: Path) -> int:
    """Of one text encoder, by its config."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
    kind = getattr(transformers, (config.architectures or ["AutoModel"])[0])
    with unfaked(), torch.device("meta"):
        return sum(parameter.numel() for parameter in kind._from_config(config).parameters())


@contextmanager
def unfaked() -> Iterator[None]:
    """Real tensors within a mode of fake ones."""
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    with unset_fake_temporarily():
        yield


def measured(backend: DiffusersBackend, side: int, text: int, config: AdapterConfig, fake: Any) -> Footprint:
    """The footprint of a backend whose denoiser and VAE are fake."""
    denoiser = backend.denoiser.eval().requires_grad_(False)
    discovery = backend.watch()
    linears = [module.weight.numel() for module in denoiser.modules() if isinstance(module, nn.Linear)]
    blocks = [sum(parameter.numel() for parameter in block.parameters()) for block in repeated_blocks(denoiser)]
    with fake:
        adapter = SparseAdapter.create(denoiser, discovery.sites, config, discovery.component)
        for parameter in adapter.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
    # Outside the mode: what meets a fake weight is fake, and models look at their masks and lengths.
    row = step_peak(backend, adapter, side)
    denoiser.enable_gradient_checkpointing()
    recomputed = step_peak(backend, adapter, side)
    codec = decode_peak(backend, side)
    return Footprint(
        family=discovery.family, parameters=sum(parameter.numel() for parameter in denoiser.parameters()),
        linear=sum(linears), in_blocks=sum(blocks), largest_block=max(blocks, default=0), largest_linear=max(linears, default=0),
        text=text, adapter=COPIES * 4 * adapter.parameter_count(), side=side, row=row, row_recomputed=recomputed, codec=codec,
    )  # fmt: skip


def blank_batch(backend: DiffusersBackend, rows: int, side: int) -> Batch:
    """A step's batch by shape alone."""
    cells = side // backend.latent_scale
    latents = torch.zeros(rows, backend.latent_channels, cells, cells, dtype=backend.dtype)
    levels = torch.full((rows,), 0.5) if backend.prediction == "flow" else torch.full((rows,), 500)
    return Batch(latents, torch.zeros_like(latents), levels, backend.blank_conditioning(rows), torch.zeros(rows, dtype=torch.long))


def step_peak(backend: DiffusersBackend, adapter: SparseAdapter, side: int, rows: int = 1) -> int:
    """Bytes that one forward and backward with the adapter make at their peak, beside the weights and the adapter's own."""
    batch = blank_batch(backend, rows, side)
    known: list[Tensor] = [*state_of(backend.denoiser), *state_of(adapter)]
    with adapter.attach(backend.denoiser, component=backend.component), PeakMemory(known) as memory:
        noise_loss(TrainConfig(), backend, batch).backward()
    for parameter in adapter.parameters():
        parameter.grad = None
    return memory.peak


@torch.no_grad()
def decode_peak(backend: DiffusersBackend, side: int) -> int:
    """Bytes of the VAE, and of what it makes to decode one picture."""
    state = state_of(backend.vae)
    latents = blank_batch(backend, 1, side).latents
    with PeakMemory(state) as memory:
        backend.decode(latents)
    return memory.peak + sum(tensor.nbytes for tensor in state)


def state_of(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
