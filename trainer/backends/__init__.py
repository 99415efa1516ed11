"""Backends by name. `open_backend` is the one door: `demo`, a diffusers folder, a single .safetensors or a GGUF file."""

from __future__ import annotations

from pathlib import Path

import torch

from ...sparsedict_core.errors import SparseDictError
from .base import Backend, Conditioning, StepCallback

__all__ = ["Backend", "Conditioning", "StepCallback", "open_backend"]


def open_backend(
    model: str | Path = "demo", device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, weights: str | None = None, spread: bool = False
) -> Backend:
    """The base model behind a name or a path, frozen. `weights`: int8, fp8 or nf4, which diffusers folders can be loaded as.
    `spread`: each process of several holds a part of the denoiser's weights.

    Raises SparseDictError with what can be opened when there is no such model.
    """
    if str(model) == "demo":
        if weights is not None or spread:
            raise SparseDictError(f"the demo base is small as it is; leave {'--shard' if spread else f'{weights} weights'} out.")
        from .demo import DemoBackend

        return DemoBackend.load(device, dtype)
    path = Path(model)
    if not path.exists():
        raise SparseDictError(f"there is no model at {path}; give a diffusers folder, a single .safetensors (SD1.5, SDXL), a .gguf in its model's folder, or demo.")
    from .open_diffusers import open_diffusers

    return open_diffusers(path, torch.device(device), dtype, weights, spread)
