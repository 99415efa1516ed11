"""Backends by name. `open_backend` is the one door: `demo`, a diffusers folder, or a single .safetensors."""

from __future__ import annotations

from pathlib import Path

import torch

from ...sparsedict_core.errors import SparseDictError
from .base import Backend, Conditioning, StepCallback

__all__ = ["Backend", "Conditioning", "StepCallback", "open_backend"]


def open_backend(model: str | Path = "demo", device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Backend:
    """The base model behind a name or a path, frozen.

    Raises SparseDictError with what can be opened when there is no such model.
    """
    if str(model) == "demo":
        from .demo import DemoBackend

        return DemoBackend.load(device, dtype)
    path = Path(model)
    if not path.exists():
        raise SparseDictError(f"there is no model at {path}; give a diffusers folder, a single .safetensors (SD1.5, SDXL), or demo.")
    from .open_diffusers import open_diffusers

    return open_diffusers(path, torch.device(device), dtype)
