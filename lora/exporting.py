"""A dictionary leaves as a LoRA file: exactly where it is linear, as the nearest LoRA where its atoms have thresholds.

Knows how loaders spell a LoRA; `nearest` is where the samples that a fit needs come from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save as serialise
from torch import Tensor

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.atomic_write import write_atomically
from ..sparsedict_core.bounds import MOST_WIDTH
from ..sparsedict_core.errors import FileFormatError
from ..sparsedict_core.file_format import DTYPES
from ..sparsedict_core.folding import SiteSamples
from ..sparsedict_core.low_rank import fitted_factors, is_linear, linear_factors, singular_factors
from ..sparsedict_core.shown_text import escaped
from ..sparsedict_core.site import SparseSite

STYLES = ("kohya", "diffusers", "peft")
#: How names of a text encoder's modules begin in a style.
_TEXT_ENCODERS = {"kohya": ("lora_te",), "diffusers": ("text_encoder",), "peft": ()}
#: Of the samples, for measuring the fit on inputs that it has not seen.
_HELD_BACK = 4


class HostModule(NamedTuple):
    """A module of a host's model by the host's own name, with its number of output channels; `rows` (start, stop) are those that diffusers
    has as a module of its own, None: all."""

    name: str
    rows: tuple[int, int] | None
    height: int


@dataclass
class ExportReport:
    """What was written. `errors` is ‖ΔO − LoRA‖ / ‖ΔO‖ by site, over inputs that the fit has not seen; empty where nothing was fitted."""

    path: Path
    style: str
    modules: int
    ranks: tuple[int, int]
    bytes: int
    errors: dict[str, float] = field(default_factory=dict)
    error: float = 0.0  # over all sites
    fused: dict[str, int] = field(default_factory=dict)  # rows by path, where the dictionary is on slices of a Linear whose height neither it nor a base tells
    left_out: int = 0  # tensors that the dictionary carried along in another spelling
    hint: str = ""
    dtype: torch.dtype = torch.float16

    @property
    def text(self) -> str:
        """Lines for people."""
        low, high = self.ranks
        rank = f"rank {low}" if low == high else f"ranks {low} to {high}"
        lines = [f"{escaped(str(self.path))}: a LoRA of {self.modules} modules, {rank}, {self.bytes:,} bytes, in {self.style}'s spelling"]
        if self.errors:
            lines.append(f"atoms have thresholds at {len(self.errors)} sites, so this is the nearest LoRA: it misses {self.error:.1%} of the change's size on other inputs")
        else:
            lines.append(f"it is the dictionary, to {str(self.dtype).removeprefix('torch.')}'s rounding")
        if self.fused:
            path, rows = next(iter(self.fused.items()))
            lines.append(f"{len(self.fused)} modules are slices of fused Linears: {path} was given the {rows} rows that its slices reach; a loader whose Linear has more will refuse it, so give the base model")
        if self.left_out:
            lines.append(f"{self.left_out} tensors of the LoRA that the dictionary came from are left out, as {self.style} spells them otherwise")
        return "\n".join([*lines, *([self.hint] if self.hint else [])])


def export_lora(
    adapter: SparseAdapter,
    path: str | Path,
    style: str = "kohya",
    rank: int | None = None,
    dtype: torch.dtype = torch.float16,
    overwrite: bool = False,
    samples: Callable[[], Mapping[str, SiteSamples]] | None = None,
    host: Mapping[str, HostModule] | None = None,
    heights: Callable[[], Mapping[str, int]] | None = None,
) -> ExportReport:
    """Write `adapter` (with its members, at their strengths) as a LoRA. The file appears whole or not at all.

    With style "peft" `path` is a folder. `rank` is at most a module's rank, None: as many as there are atoms. `samples` gives inputs by site, which atoms with thresholds need.
    `host` has a host's modules by path (without the component), for kohya's names: slices of one of them leave as one module. `heights` gives the output channels of the base's
    Linears by path, asked where the dictionary is on slices of one and does not tell. Raises FileFormatError: a file that is there, values that `dtype` cannot hold, a gated dictionary without samples.
    """
    path = Path(path)
    if style not in STYLES:
        raise FileFormatError(f"{style!r} is no spelling of LoRAs; choose {', '.join(STYLES)}.")
    if dtype not in DTYPES.values():
        raise FileFormatError(f"{path}: a LoRA cannot be saved as {dtype}; choose fp16, bf16 or fp32.")
    if style == "peft":
        path = path / "adapter_model.safetensors"
    elif path.suffix.lower() != ".safetensors":
        raise FileFormatError(f"{path}: a LoRA's file name must end in .safetensors.")
    if path.exists() and not overwrite:
        raise FileFormatError(f"{path} exists already; choose another name, or allow it to be overwritten.")
    report = ExportReport(path, style, 0, (0, 0), 0, dtype=dtype)
    if style == "kohya" and adapter.component == "transformer" and host is None:
        report.hint = "its names are diffusers' after kohya's prefix, as ComfyUI and OneTrainer have them for SD3 and Flux; diffusers takes --style diffusers, kohya's tools what Save as LoRA writes in ComfyUI with a model connected"
    found = _Modules(adapter, host or {}, heights, report)
    found.take(rank, samples)
    modules = found.whole(rank)
    if not modules:
        raise FileFormatError(f"{path}: the dictionary has no atoms left, so there is no LoRA to write; keep some.")
    tensors: dict[str, Tensor] = {}
    for module, (down, up) in modules.items():
        tensors.update(_spelled(adapter.component, module, down, up, style, host is not None))
    ranks = {module: down.shape[0] for module, (down, _) in modules.items()}
    stored = {key: _stored(path, key, tensor, dtype) for key, tensor in tensors.items()}
    # Loaders read a file in one spelling.
    kept = {key: tensor for key, tensor in adapter.aside.items() if key.startswith(_TEXT_ENCODERS[style]) and key not in stored}
    report.left_out = len(adapter.aside) - len(kept)
    stored |= kept
    data = serialise(stored, metadata=_text(adapter, style, ranks, kept, report))
    path.parent.mkdir(parents=True, exist_ok=True)
    if style == "peft":
        settings = json.dumps({"peft_type": "LORA", **peft_settings(ranks)}, indent=2, sort_keys=True)
        write_atomically(path.with_name("adapter_config.json"), settings.encode())
    write_atomically(path, data)
    report.modules, report.bytes, report.ranks = len(modules), len(data), (min(ranks.values()), max(ranks.values()))
    return report


class _Modules:
    """(down, up) by path without the component, in kohya's style by the host's name; sites of several members, and of several slices, at one module are added up."""

    def __init__(self, adapter: SparseAdapter, host: Mapping[str, HostModule], heights: Callable[[], Mapping[str, int]] | None, report: ExportReport) -> None:
        self.adapter, self.host, self.heights, self.report = adapter, host, heights, report
        self.parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self.kernels: dict[str, tuple[int, ...]] = {}  # of convolutions

    def take(self, rank: int | None, samples: Callable[[], Mapping[str, SiteSamples]] | None) -> None:
        """All sites: linear ones as they are, those with thresholds as fitted to their samples."""
        strengths = {member.name: member.strength for member in self.adapter.members}
        gated = [key for key, site in self.adapter.sites.items() if site.atoms and not is_linear(site)]
        if gated and samples is None:
            raise FileFormatError(
                f"{gated[0]} and {len(gated) - 1} other sites have atoms with thresholds, which no LoRA has; give the base model, so that the nearest LoRA can be fitted."
            )
        known = samples() if gated and samples is not None else {}
        lost = whole = 0.0
        for key, site in self.adapter.sites.items():
            if site.atoms == 0:
                continue
            if key in gated:
                if key not in known:
                    raise FileFormatError(f"{self.report.path}: {key} was never at work in the samples, so no LoRA can be fitted to it; prune the site's atoms away first.")
                down, up, missed, size = _fitted(site, known[key], rank or site.atoms)
                lost, whole = lost + missed, whole + size
                self.report.errors[key] = (missed / size) ** 0.5 if size else 0.0
            else:
                down, up = linear_factors(site)
            self._add(key, site, down, up * strengths.get(site.member or "", 1.0))
        self.report.error = (lost / whole) ** 0.5 if whole else 0.0

    def _add(self, key: str, site: SparseSite, down: Tensor, up: Tensor) -> None:
        """To its module, in the rows of it that are the site's; nothing is added to the others."""
        path = site.name.path.removeprefix(f"{self.adapter.component}.")
        own = self.host.get(path, HostModule(path, None, 0))
        target, first, height = (own.name, (own.rows or (0, 0))[0], own.height) if self.report.style == "kohya" else (path, 0, 0)
        if site.name.rows is not None:
            first, height = first + site.name.rows[0], height or self._height(site.name.path, path)
        if site.name.rows is not None or (height and own.rows is not None):
            if first + site.d_out > height:
                raise FileFormatError(f"{self.report.path}: {key} reaches row {first + site.d_out} of {target}, which has {height} in this model; give the model that the dictionary is for.")
            fused = up.new_zeros(height, up.shape[1])
            fused[first : first + site.d_out] = up
            up = fused
        self.parts.setdefault(target, []).append((down, up))
        patches = _noted(self.adapter, "convolutions")
        if path in patches and math.prod(patches[path]) == down.shape[1]:
            self.kernels[target] = tuple(patches[path])

    def _height(self, whole: str, path: str) -> int:
        """Rows of a fused Linear, told by the dictionary, else by a base; else, and noted, as far as the dictionary's slices of it reach."""
        reach = max(site.name.rows[1] for site in self.adapter.sites.values() if site.name.path == whole and site.name.rows is not None)
        told = _noted(self.adapter, "fused").get(path)
        if told is None and path in self.host:
            own = self.host[path]
            told = own.height if own.rows is None else own.rows[1] - own.rows[0]
        if told is None and self.heights is not None:
            told = self.heights().get(path)
        if isinstance(told, int) and reach <= told <= MOST_WIDTH:
            return told
        self.report.fused[path] = reach
        return reach

    def whole(self, rank: int | None) -> dict[str, tuple[Tensor, Tensor]]:
        """Each module's parts in one, of at most `rank`."""
        found = {}
        for path, pairs in self.parts.items():
            down, up = torch.cat([down for down, _ in pairs]), torch.cat([up for _, up in pairs], dim=1)
            if (rank is not None and down.shape[0] > rank) or down.shape[0] > min(down.shape[1], up.shape[0]):
                down, up, _ = singular_factors(down, up)
                down, up = down[:rank], up[:rank].T
            if path in self.kernels:
                down, up = down.reshape(-1, *self.kernels[path]), up.reshape(*up.shape, *(1,) * (len(self.kernels[path]) - 1))
            found[path] = down, up
        return found


def _noted(adapter: SparseAdapter, key: str) -> dict[str, Any]:
    """What the dictionary notes of the base's modules, by path; its file may be anyone's."""
    noted = adapter.metadata.get(key)
    return noted if isinstance(noted, dict) else {}


def _fitted(site: SparseSite, sample: SiteSamples, rank: int) -> tuple[Tensor, Tensor, float, float]:
    """(down, up), and the squares of what it misses and of the whole on every fourth of the inputs, which the fit has not seen."""
    x = sample.x if sample.quiet is None else torch.cat([sample.x, sample.quiet])
    x = x.to(site.encoder_weight.device, torch.float32)
    update = site(x).detach().cpu().double()
    x = x.cpu().double()
    seen = torch.arange(len(x)) % _HELD_BACK != 0
    down, up = fitted_factors(x[seen], update[seen], min(rank, site.d_in, site.d_out))
    missed = update[~seen] - x[~seen] @ down.T @ up.T
    return down, up, float(missed.square().sum()), float(update[~seen].square().sum())


def _spelled(component: str, path: str, down: Tensor, up: Tensor, style: str, by_host: bool) -> dict[str, Tensor]:
    if style == "diffusers":
        return {f"{component}.{path}.lora_A.weight": down, f"{component}.{path}.lora_B.weight": up}
    if style == "peft":
        return {f"base_model.model.{path}.lora_A.weight": down, f"base_model.model.{path}.lora_B.weight": up}
    # kohya's own prefix for the original's names; for transformers the one under which loaders expect diffusers'.
    name = ("lora_unet_" if by_host or component == "unet" else "lora_transformer_") + path.replace(".", "_")
    return {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(float(down.shape[0]), dtype=torch.float64)}


def _stored(path: Path, key: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    stored = tensor.to(torch.float32 if key.endswith(".alpha") else dtype).contiguous()
    if not bool(torch.isfinite(stored).all()):
        raise FileFormatError(f"{path}: {key} has values that {str(dtype).removeprefix('torch.')} cannot hold; save as bf16 or fp32.")
    return stored


def _text(adapter: SparseAdapter, style: str, ranks: dict[str, int], kept: Mapping[str, Tensor], report: ExportReport) -> dict[str, str]:
    """What loaders read, and where the LoRA is from."""
    family = str(adapter.metadata.get("base_family", ""))
    text = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{family or 'unknown'}/lora",
        "modelspec.title": str(adapter.metadata.get("title", "SparseDict adapter")),
        "modelspec.implementation": "SparseDict",
    }
    if adapter.trigger_words:
        text["modelspec.trigger_phrase"] = ", ".join(adapter.trigger_words)
    if report.errors:
        text["sparsedict.error"] = f"{report.error:.6f}"
        text["sparsedict.errors"] = json.dumps({key: round(value, 6) for key, value in report.errors.items()})
    if style == "diffusers":
        # diffusers refuses a component that has tensors and no settings.
        components = {adapter.component: ranks, **_text_encoder_ranks(kept)}
        settings = {f"{component}.{key}": value for component, its in components.items() for key, value in peft_settings(its).items()}
        text["lora_adapter_metadata"] = json.dumps(settings, sort_keys=True)
    return text


def _text_encoder_ranks(kept: Mapping[str, Tensor]) -> dict[str, dict[str, int]]:
    """By text encoder the rank of each of its modules, whose scale went into their numbers when they came in."""
    found: dict[str, dict[str, int]] = {}
    for key, tensor in kept.items():
        name, down, _ = key.partition(".lora_A.weight")
        component, _, path = name.partition(".")
        if down:
            found.setdefault(component, {})[path] = tensor.shape[0]
    return found


def peft_settings(ranks: Mapping[str, int]) -> dict[str, Any]:
    """peft's settings for modules of these ranks, each scaled by 1."""
    most = max(ranks.values())
    others = {path: rank for path, rank in ranks.items() if rank != most}
    return {"r": most, "lora_alpha": most, "rank_pattern": others, "alpha_pattern": others, "target_modules": sorted(ranks)}
