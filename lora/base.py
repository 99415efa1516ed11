"""The base model that a LoRA is for, as far as names and shapes go: built without its weights, so that SDXL or Flux opens in a second."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..sparsedict_core.errors import SiteError, SparseDictError, first_line
from ..sparsedict_core.places import widths
from ..sparsedict_core.site import Place, SiteName
from ..sparsedict_core.site_discovery import discover_sites
from ..sparsedict_core.tokens import is_convolution
from .importing import BasePlaces


@dataclass(frozen=True)
class Base:
    """`denoiser` may be on the meta device; `loader` is the pipeline class that knows LoRAs, or None."""

    denoiser: nn.Module
    component: str
    family: str
    loader: Any = None
    outputs: tuple[SiteName, ...] = ()  # the attention outputs, by which layers are numbered
    folder: Path | None = None  # of the denoiser's weights, where they are not in it

    def places(self) -> BasePlaces:
        """What a LoRA can be put on."""
        found = {path: wide for path, module in self.denoiser.named_modules() if (wide := _widths(module)) is not None}

        def weight_of(path: str) -> torch.Tensor | None:
            weight = self.denoiser.get_submodule(path).weight
            return stored_weight(self.folder, f"{path}.weight") if weight.device.type == "meta" else weight.detach()

        patches = {path: tuple(module.weight.shape[1:]) for path, module in self.denoiser.named_modules() if isinstance(module, nn.Conv2d)}
        return BasePlaces(self.family, self.component, found, self.outputs, weight_of, patches)

    @classmethod
    def of(cls, denoiser: nn.Module, loader: Any = None) -> Base:
        """Of a denoiser at hand. One that no family knows is called by its class, and its layers are not numbered."""
        try:
            found = discover_sites(denoiser)
        except SiteError:
            name = type(denoiser).__name__
            return cls(denoiser, "unet" if "UNet" in name else "transformer", name, loader)
        return cls(denoiser, found.component, found.family, loader, tuple(found.sites))


def open_base(model: str | Path) -> Base:
    """From `demo`, a diffusers folder, or a single file with such a folder (of settings alone) beside it; weights are not read.

    Raises SparseDictError where the folder is missing or its settings cannot be read.
    """
    import diffusers

    if str(model) == "demo":
        from ..trainer.backends import open_backend

        return Base.of(open_backend("demo").denoiser, diffusers.StableDiffusion3Pipeline)
    folder = Path(model)
    if folder.is_file():
        from ..trainer.backends.open_diffusers import SINGLE_FILES, config_folder, single_file_pipeline

        folder = config_folder(folder, SINGLE_FILES[single_file_pipeline(folder)][1])
    index = folder / "model_index.json"
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))
        component = next(name for name in ("transformer", "unet") if name in listed)
        kind, pipeline = getattr(diffusers, listed[component][1]), getattr(diffusers, listed["_class_name"], None)
        with torch.device("meta"):
            denoiser = kind.from_config(kind.load_config(str(folder / component), local_files_only=True))
    except FileNotFoundError:
        raise SparseDictError(f"{folder} has no model_index.json, so it is no diffusers folder; give the folder of the LoRA's base model, or `demo`.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise SparseDictError(f"{index} names no denoiser that can be built ({type(error).__name__}: {error}); check that the folder is whole.") from error
    return replace(Base.of(denoiser, pipeline), folder=folder / component)


def stored_weight(folder: Path | None, key: str) -> torch.Tensor | None:
    """A weight from a denoiser's folder; None where it is not there, as in a folder of settings."""
    from safetensors import SafetensorError, safe_open

    # The names of variants and of parts are longer.
    for file in sorted(folder.glob("*.safetensors"), key=lambda file: (len(file.name), file.name)) if folder else ():
        try:
            with safe_open(str(file), "pt") as opened:
                if key in set(opened.keys()):
                    return opened.get_tensor(key)
        except (OSError, SafetensorError) as error:
            raise SparseDictError(f"{file} cannot be read ({first_line(error)}); check that the base's folder was downloaded in full.") from error
    return None


def _widths(module: nn.Module) -> tuple[int, int] | None:
    """(d_in, d_out) of a Linear, or of a convolution that can be a site."""
    if isinstance(module, nn.Linear) or is_convolution(module):
        return widths(Place(module))
    return None
