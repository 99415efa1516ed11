"""What is timed in the host: its models with latents and conditioning, and adapters and LoRAs of equal size for them."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...sparsedict_core.adapter import SparseAdapter
from ...sparsedict_core.config import AdapterConfig
from ...tools.comfy_host import PROJECT, default_root
from ...tools.host_in_process import make_base, start

IMAGES = 8
PROMPTS = ["a large flat fox", "a small glossy star", "a flat rose", "a glossy owl on the left"]


def find_host() -> Path:
    """The host's folder. Raises SystemExit with what to do."""
    root = default_root()
    if not (root / "main.py").exists():
        raise SystemExit(f"there is no ComfyUI at {root}; run `python3 dev.py comfy --setup-only`, or set COMFYUI_ROOT.")
    return root


def start_host(root: Path, folder: Path) -> str:
    """Make the host's modules importable, on the CPU, with folders of their own; returns its version."""
    start(root, make_base(folder))
    import comfy.utils
    import comfyui_version

    comfy.utils.PROGRESS_BAR_ENABLED = False
    logging.getLogger().setLevel(logging.WARNING)
    torch.set_num_threads(1)
    return str(comfyui_version.__version__)


class Case:
    """One model: its patcher, LATENT samples (8 rows), a CONDITIONING for each, and others for quiet samples."""

    def __init__(self, name: str) -> None:
        self.name = name
        if name == "demo":
            from ...comfyui_host.demo_base import empty_latent, load_clip, load_model

            with torch.inference_mode():
                self.patcher, self.clip = load_model(), load_clip()
                self.positive = [self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text)) for text in PROMPTS * 2]
                self.negative = self.clip.encode_from_tokens_scheduled(self.clip.tokenize(""))
            shape = empty_latent(IMAGES)["samples"].shape
        else:
            tiny = tiny_models()
            self.patcher, self.clip = tiny.load(name), None
            self.positive = [tiny.conditioning(name, seed) for seed in range(IMAGES)]
            self.negative = tiny.conditioning(name, 99)
            shape = tiny.latent(name, IMAGES)["samples"].shape
        # As empty latents are on the host; noise would be as good.
        self.samples = torch.randn(shape, generator=torch.Generator().manual_seed(5))

    def backend(self) -> Any:
        """Our training backend on a fresh clone, and its data."""
        from ...trainer.backends.comfyui import ComfyBackend
        from ...trainer.data import ConceptData

        backend = ComfyBackend(self.patcher, steps=2)
        captions = [f"conditioning {row}" for row in range(IMAGES)]
        with torch.inference_mode(False):
            for caption, conditioning in zip(["", *captions], [self.negative, *self.positive]):
                backend.register(caption, conditioning)
            return backend, ConceptData.from_latents(list(backend.latents_in(self.samples)), captions)


def tiny_models() -> Any:
    """The tests' small random models, one a family."""
    path = PROJECT / "tests" / "comfy" / "tiny_models.py"
    if path.stem not in sys.modules:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        sys.modules[path.stem] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
        spec.loader.exec_module(sys.modules[path.stem])
    return sys.modules[path.stem]


def host_parameters(patcher: Any, rank: int) -> int:
    """What TrainLoraNode trains: factors for every matrix, and each vector itself."""
    total = 0
    for module in patcher.model.modules():
        if hasattr(module, "weight_function"):
            weight, bias = module.weight, getattr(module, "bias", None)
            total += 0 if weight is None else rank * (weight.shape[0] + weight[0].numel()) if weight.ndim > 1 else weight.numel()
            total += 0 if bias is None else bias.numel()
    return total


def site_widths(patcher: Any) -> list[tuple[int, int]]:
    """(d_in, d_out) of every site."""
    from ...comfyui_host.sites import host_sites

    return [(module.weight.shape[1], module.weight.shape[0]) for module in host_sites(patcher).modules.values()]


def our_parameters(widths: list[tuple[int, int]], atoms: int, rank: int) -> int:
    return sum(2 * atoms * rank + atoms + rank * (a + b) for a, b in widths)


def nearest(count: Callable[[int], int], wanted: int) -> int:
    """The setting from 1 to 4096 whose number of parameters is nearest to `wanted`."""
    return min(range(1, 4097), key=lambda value: abs(count(value) - wanted))


def full_adapter(case: Case, atoms: int = 128, rank: int = 16) -> SparseAdapter:
    """An adapter on all sites that does something, with about a tenth of its coefficients at work."""
    from ...comfyui_host.sites import alias_tree, host_sites

    sites = host_sites(case.patcher)
    metadata = {"base_family": sites.family}
    with torch.inference_mode(False):
        adapter = SparseAdapter.create(alias_tree(sites), sites.names, AdapterConfig(atoms=atoms, rank=rank), sites.component, 0, metadata)
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for site in adapter.sites.values():
                assert site.dictionary_basis is not None
                site.dictionary_basis.copy_(1e-3 * torch.randn(site.dictionary_basis.shape, generator=generator))
                site.threshold.fill_(1.5)
        adapter.requires_grad_(False)
    return adapter


def kept(adapter: SparseAdapter, share: float) -> dict[str, Tensor]:
    """Gains that keep `share` of every site's atoms, spread over it."""
    gains = {}
    for key, site in adapter.sites.items():
        order = torch.randperm(site.atoms, generator=torch.Generator().manual_seed(len(gains)))
        gains[key] = torch.zeros(site.atoms).index_fill(0, order[: max(1, round(site.atoms * share))], 1.0)
    return gains


def lora_weights(patcher: Any, names: list[str], rank: int) -> dict[str, Tensor]:
    """A LoRA file for the modules of these names (within the host's model)."""
    modules, generator = dict(patcher.model.named_modules()), torch.Generator().manual_seed(8)
    weights = {}
    for name in names:
        out, into = modules[name].weight.shape[0], modules[name].weight[0].numel()
        weights[f"{name}.lora_down.weight"] = torch.randn(rank, into, generator=generator) / into**0.5
        weights[f"{name}.lora_up.weight"] = 1e-3 * torch.randn(out, rank, generator=generator)
        if modules[name].weight.ndim == 4:
            weights[f"{name}.lora_down.weight"] = weights[f"{name}.lora_down.weight"].view(rank, *modules[name].weight.shape[1:])
            weights[f"{name}.lora_up.weight"] = weights[f"{name}.lora_up.weight"].view(out, rank, 1, 1)
    return weights


def names_of(case: Case, every: bool = False) -> list[str]:
    """The host's names of the sites' modules, or of all that have matrices."""
    from ...comfyui_host.sites import host_sites

    sites = set(map(id, host_sites(case.patcher).modules.values()))
    return [
        name
        for name, module in case.patcher.model.named_modules()
        if id(module) in sites
        or (every and getattr(module, "weight", None) is not None and module.weight.ndim in (2, 4) and "embedder" not in name)
    ]
