"""What a base model takes of a card's memory, from its shapes: one training step is run on fake tensors, which hold nothing."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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
from .backends.swapped_blocks import repeated_blocks
from .batches import Batch
from .config import TrainConfig
from .forward import noise_loss
from .peak import PeakMemory
from .policy import Footprint

#: Adapter, gradient and Adam's two moments, all fp32.
COPIES = 4
#: Layers of a kind that are run, and what configs call their numbers.
FEW = 2
DEPTHS = ("num_layers", "num_single_layers", "n_layers")
#: Tokens that a tokenizer without a limit of its own takes.
LONGEST_TEXT = 512


def footprint_of(model: str | Path, side: int | None = None, config: AdapterConfig | None = None, dtype: torch.dtype = torch.bfloat16) -> Footprint:
    """The footprint of a diffusers folder or of a published model by name, at its own size unless `side` says otherwise.

    No weight is read, and a folder needs none. Raises SparseDictError for what is neither.
    """
    shapes = ModelShapes.published(str(model)) if str(model) in FULL_SIZES else ModelShapes.of_folder(Path(model))
    return measured(shapes, side, config or AdapterConfig(), dtype)


def measured(shapes: ModelShapes, side: int | None, config: AdapterConfig, dtype: torch.dtype) -> Footprint:
    """The footprint of a model of these shapes, at its own size unless `side` says otherwise."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    fake = FakeTensorMode(allow_non_fake_inputs=True)
    backend = shapes.backend(dtype, fake)
    side = side or backend.default_size
    denoiser = backend.denoiser
    linears = [module.weight.numel() for module in denoiser.modules() if isinstance(module, nn.Linear)]
    blocks = [sum(parameter.numel() for parameter in block.parameters()) for block in repeated_blocks(denoiser)]
    row, recomputed = shapes.row_bytes(side, config, dtype, fake)
    return Footprint(
        family=backend.family, parameters=sum(parameter.numel() for parameter in denoiser.parameters()),
        linear=sum(linears), in_blocks=sum(blocks), largest_block=max(blocks, default=0), largest_linear=max(linears, default=0),
        text=shapes.text, adapter=COPIES * 4 * fake_adapter(backend, config, fake).parameter_count(), side=side, row=row, row_recomputed=recomputed,
        codec=decode_peak(backend, side),
    )  # fmt: skip


@contextmanager
def floats_as(dtype: torch.dtype) -> Iterator[None]:
    """What tensors of floating point are made as within the block, where nothing else is said."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@dataclass(frozen=True)
class ModelShapes:
    """The classes and configs that a pipeline is made of."""

    pipeline: str
    denoiser: Any
    config: dict[str, Any]
    vae: Any
    vae_config: dict[str, Any]
    text: int  # parameters of the text encoders
    scheduler: dict[str, Any] | None = None
    lengths: dict[str, int] = field(default_factory=dict)  # by tokenizer, the most tokens that it takes

    @classmethod
    def published(cls, name: str) -> ModelShapes:
        import diffusers

        size = FULL_SIZES[name]
        return cls(size.pipeline, getattr(diffusers, size.denoiser), size.config, getattr(diffusers, size.vae), size.vae_config, int(size.text))

    @classmethod
    def of_folder(cls, folder: Path) -> ModelShapes:
        import diffusers

        name = pipeline_name(folder)
        parts: list[Any] = []
        for part in (backend_class(name, folder).component, "vae"):
            config = read_config(folder / part / "config.json")
            kind = getattr(diffusers, str(config.get("_class_name")), None)
            if kind is None:
                raise SparseDictError(f"{folder / part / 'config.json'} names no class of diffusers; download the model again.")
            parts += [kind, {key: value for key, value in config.items() if not key.startswith("_")}]
        text = sum(text_parameters(path) for path in sorted(folder.glob("text_encoder*")))
        lengths = {path.parent.name: read_config(path).get("model_max_length", LONGEST_TEXT) for path in folder.glob("tokenizer*/tokenizer_config.json")}
        scheduler = read_config(folder / "scheduler" / "scheduler_config.json")
        denoiser, config, vae, vae_config = parts
        return cls(name, denoiser, config, vae, vae_config, text, scheduler, lengths)

    def backend(self, dtype: torch.dtype, fake: Any, **changed: Any) -> DiffusersBackend:
        """A backend whose denoiser and VAE are made within `fake`, and so have no weights; `changed` goes over the denoiser's config."""
        from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

        kind = backend_class(self.pipeline, Path(self.pipeline))
        with floats_as(dtype), fake:
            denoiser, vae = self.denoiser(**{**self.config, **changed}), self.vae(**self.vae_config)
        scheduler = DDPMScheduler if kind.component == "unet" else FlowMatchEulerDiscreteScheduler
        stand_in = SimpleNamespace(
            vae=vae, components={}, config=SimpleNamespace(force_zeros_for_empty_prompt=False), tokenizer_max_length=77,
            scheduler=scheduler.from_config(self.scheduler) if self.scheduler else scheduler(),
        )  # fmt: skip
        for name in ("tokenizer", "tokenizer_2", "tokenizer_3"):
            setattr(stand_in, name, SimpleNamespace(model_max_length=self.lengths.get(name, LONGEST_TEXT)))
        setattr(stand_in, kind.component, denoiser.eval().requires_grad_(False))
        return kind(stand_in, "cpu", dtype)

    def row_bytes(self, side: int, config: AdapterConfig, dtype: torch.dtype, fake: Any) -> tuple[int, int]:
        """Activations of one row, all kept and with recomputed blocks.

        Of a deep model a few layers of each kind are run: every further one adds as much.
        """
        depths = {name: depth for name, depth in self.depths().items() if depth > FEW + 1}
        shallow = dict.fromkeys(depths, FEW)

        def run(**changed: int) -> Tensor:
            return torch.tensor(row_peaks(self.backend(dtype, fake, **{**shallow, **changed}), side, config, fake), dtype=torch.float64)

        few = run()
        row, recomputed = (few + sum((depth - FEW) * (run(**{name: FEW + 1}) - few) for name, depth in depths.items())).tolist()
        return int(row), int(recomputed)

    def depths(self) -> dict[str, int]:
        """By their name in the config, the numbers of layers; none for models whose layers differ."""
        if self.config.get("dual_attention_layers"):
            return {}
        defaults = {name: parameter.default for name, parameter in inspect.signature(self.denoiser.__init__).parameters.items()}
        found = {name: self.config.get(name, defaults[name]) for name in DEPTHS if name in defaults}
        return {name: depth for name, depth in found.items() if isinstance(depth, int)}


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
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in kind._from_config(config).parameters())


def fake_adapter(backend: DiffusersBackend, config: AdapterConfig, fake: Any) -> SparseAdapter:
    discovery = backend.watch()
    with fake:
        adapter = SparseAdapter.create(backend.denoiser, discovery.sites, config, discovery.component)
    for parameter in adapter.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return adapter


def row_peaks(backend: DiffusersBackend, side: int, config: AdapterConfig, fake: Any) -> tuple[int, int]:
    """`step_peak` of one row with a new adapter, all kept and with recomputed blocks."""
    adapter = fake_adapter(backend, config, fake)
    # Outside the mode: what meets a fake weight is fake, and models look at their masks and lengths.
    row = step_peak(backend, adapter, side)
    backend.denoiser.enable_gradient_checkpointing()
    return row, step_peak(backend, adapter, side)


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
