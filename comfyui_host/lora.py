"""LoRAs of the host: read by its own key map into a dictionary for its loaded model, and written under the names that it and kohya's tools know."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..lora.exporting import HostModule
from ..lora.importing import BasePlaces, ImportReport, LoraImport
from ..lora.lora_file import LoraFile
from ..lora.names import Part, named_by_path
from ..lora.original_names import PIECE, original_name
from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.folding import SiteSamples
from ..sparsedict_core.places import widths
from ..sparsedict_core.site import Place, SparseSite
from ..sparsedict_core.text_encoders import is_text_encoder
from .injection import KEY, applied_to, apply_adapter
from .linears import host_linears
from .sites import diffusion_model, host_config, host_sites

Rows = tuple[int, int] | None


def import_lora(path: str | Path, patcher: Any, rank: int, allow_part: bool = False) -> tuple[SparseAdapter, ImportReport]:
    """The dictionary that a LoRA file is on the host's model, and what became of the file. Raises FileFormatError (see `LoraImport`)."""
    file, places = LoraFile(path), base_places(patcher)
    names = [name for name in file.modules if not is_text_encoder(name)]
    parts = named_by_host(names, patcher)
    known = {part.module for part in parts}
    parts += named_by_path((name for name in names if name not in known), places.widths)
    work = LoraImport(file, parts, places, rank, allow_part=allow_part)
    return work.adapter(Path(path).stem), work.report


def named_by_host(names: list[str], patcher: Any) -> list[Part]:
    """Where the host itself would put LoRA modules of these names."""
    import comfy.lora

    key_map = comfy.lora.model_lora_keys_unet(patcher.model, {})
    paths: dict[str, list[tuple[str, Rows]]] = {}
    for path, (module, rows) in _linears(patcher).items():
        paths.setdefault(module, []).append((path, rows))
    parts = []
    for name in names:
        target = key_map.get(name) or key_map.get(name.replace("lora_unet__", "lora_unet_", 1))  # Wan Fun's own prefix
        if target is None:
            original = original_name(name)
            target = key_map.get(f"diffusion_model.{original}")
            if target is None and (piece := PIECE.fullmatch(original)) is not None:
                slices = sorted((rows, path) for path, rows in paths.get(piece[1], []) if rows is not None)
                parts += [Part(name, path) for _, path in slices[int(piece[2]) : int(piece[2]) + 1]]
        if target is None:
            continue
        key, rows = (target, None) if isinstance(target, str) else (target[0], target[1] and (target[1][1], target[1][1] + target[1][2]))
        for path, own in paths.get(key.removeprefix("diffusion_model.").removesuffix(".weight"), []):
            if own == rows:
                parts.append(Part(name, path))
            elif own is not None and (rows is None or (rows[0] <= own[0] and own[1] <= rows[1])):
                first = 0 if rows is None else rows[0]
                parts.append(Part(name, path, tuple(range(own[0] - first, own[1] - first))))
    return parts


def base_places(patcher: Any) -> BasePlaces:
    """What the host's model has to offer a LoRA."""
    sites, model = host_sites(patcher), diffusion_model(patcher)
    modules, linears = dict(model.named_modules()), _linears(patcher)
    found, patches = {}, {}
    for path, (name, rows) in linears.items():
        wide = widths(Place(modules[name], rows))
        if wide is not None:
            found[path] = wide
        weight = getattr(modules[name], "weight", None)
        if isinstance(weight, Tensor) and weight.ndim == 4:
            patches[path] = tuple(weight.shape[1:])

    def weight_of(path: str) -> Tensor | None:
        name, rows = linears[path]
        weight = modules[name].weight.detach().float()
        return weight if rows is None else weight[slice(*rows)]

    other_way = "update ComfyUI, which does not know these names either, or have the LoRA saved in the spelling of kohya or diffusers"
    return BasePlaces(sites.family, sites.component, found, sites.names, weight_of, patches, other_way)


def host_modules(patcher: Any) -> dict[str, HostModule]:
    """The host's module at each path (without the component), for `export_lora`."""
    modules = dict(diffusion_model(patcher).named_modules())
    found = {path: (name, rows, widths(Place(modules[name]))) for path, (name, rows) in _linears(patcher).items()}
    return {path: HostModule(name, rows, wide[1]) for path, (name, rows, wide) in found.items() if wide}


@torch.no_grad()
def inputs_of(patcher: Any, adapter: SparseAdapter, positive: Any, latent: Mapping[str, Any], steps: int = 8, tokens: int = 64) -> dict[str, SiteSamples]:
    """Inputs by site key while the host samples `positive` with the dictionary on its model, `tokens` a call by chance."""
    from comfy.patcher_extension import WrappersMP

    import nodes as host_nodes

    clone = apply_adapter(patcher, adapter)
    applied, found = applied_to(clone)[-1], {}
    chance = torch.Generator().manual_seed(0)

    def note(key: str, site: SparseSite, x: Tensor, coefficients: Tensor, update: Tensor, output: Tensor) -> None:
        flat = x.detach().flatten(0, -2)
        chosen = torch.randint(len(flat), (tokens,), generator=chance).to(flat.device)
        found.setdefault(key, []).append(flat[chosen].float().cpu())

    def watched(executor: Any, *args: Any, **kwargs: Any) -> Any:
        with applied.attachment(clone).tap(note):
            return executor(*args, **kwargs)

    clone.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, watched)
    host_nodes.common_ksampler(clone, 0, steps, 1.0, "euler", "simple", positive, positive, latent)
    return {key: SiteSamples(torch.cat(parts), torch.zeros(0)) for key, parts in found.items()}


def _linears(patcher: Any) -> dict[str, tuple[str, Rows]]:
    return host_linears(host_sites(patcher).family, diffusion_model(patcher), host_config(patcher))
