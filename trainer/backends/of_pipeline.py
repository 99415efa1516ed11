"""A diffusers pipeline that a program has loaded already, as a backend for as long as it is trained on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn

from ...sparsedict_core.attached import attached
from ...sparsedict_core.errors import SparseDictError
from ...sparsedict_core.site_discovery import denoiser_of
from .base import Backend
from .open_diffusers import BACKENDS, backend_class, supported


@contextlib.contextmanager
def borrowed(pipeline: Any) -> Iterator[Backend]:
    """The pipeline as a backend, on the device and in the precision that it has; given back as it was.

    Raises SparseDictError for a pipeline of another family, and for one whose parts are moved in and out as they are used.
    """
    name = next((kind.__name__ for kind in type(pipeline).__mro__ if kind.__name__ in BACKENDS), None)
    if isinstance(pipeline, str):
        raise SparseDictError(f"a base is opened before it is trained on: backend=sparsedict.open_backend({pipeline!r}).")
    if name is None:
        raise SparseDictError(f"a {type(pipeline).__name__} cannot be trained on. {supported()}")
    parts = {key: part for key, part in pipeline.components.items() if isinstance(part, nn.Module)}
    if any(hasattr(part, "_hf_hook") for part in parts.values()):
        raise SparseDictError("the pipeline is offloaded, and training needs its parts in place; call pipe.remove_all_hooks() and pipe.to(device) first.")
    on = attached(pipeline)
    if on:
        raise SparseDictError(f"there are adapters on the pipeline ({', '.join(on)}); attached(pipe).remove_all() takes them off before training.")
    before = {key: (part.training, part.dtype, [p.requires_grad for p in part.parameters()]) for key, part in parts.items()}
    denoiser = denoiser_of(pipeline)
    try:
        yield backend_class(name, name)(pipeline, pipeline.device, denoiser.dtype)
    finally:
        for key, part in parts.items():
            training, dtype, wanted = before[key]
            if part.dtype != dtype:
                part.to(dtype=dtype)
            part.train(training)
            for parameter, was in zip(part.parameters(), wanted, strict=True):
                parameter.requires_grad_(was)
