"""What a diffusers folder says of itself, and how it is read."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path


def parts_of(folder: Path) -> list[str]:
    """The names of a diffusers folder's parts that are models."""
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    return [name for name, value in index.items() if isinstance(value, list) and value[0] is not None and (folder / name / "config.json").exists()]


def weights_variant(folder: Path) -> str | None:
    """"fp16" where only half-precision weights were downloaded, as diffusers must be told so."""
    names = [file.name for pattern in ("*.safetensors", "*.bin") for file in folder.glob(pattern)]
    return "fp16" if names and all(".fp16." in name or ".fp16-" in name for name in names) else None


@contextlib.contextmanager
def quiet_about_dtype() -> Iterator[None]:
    """Newer diffusers want `dtype` for `torch_dtype`, older ones know only the latter, which works in both."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch_dtype", category=FutureWarning)
        yield
