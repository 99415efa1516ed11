"""The encoders by name. A new one is one file beside these and one line here."""

from __future__ import annotations

import difflib
from typing import Any

from ..errors import SparseDictError
from .base import Encoder
from .linear import LinearEncoder
from .quantile import QuantileEncoder
from .soft import SoftEncoder

_ENCODERS: dict[str, type[Encoder]] = {encoder.name: encoder for encoder in (QuantileEncoder, SoftEncoder, LinearEncoder)}

#: Encoders of version 0.1.0 that were tried and left (docs/method.md).
_REMOVED = ("soft_l1", "jumprelu", "topk", "batch_topk", "attention", "ista")
#: Others that were left, and what computes the same coefficients from the same stored threshold.
SUCCESSORS = {"soft_quantile": "soft", "relu_l1": "quantile"}

__all__ = ["SUCCESSORS", "Encoder", "encoder_names", "get_encoder"]


def encoder_names() -> tuple[str, ...]:
    """All registered names, the default first."""
    return tuple(_ENCODERS)


def get_encoder(name: str, /, **settings: Any) -> Encoder:
    """The encoder of that name. Raises SparseDictError for an unknown name or setting, or a setting out of its bounds."""
    if name in _REMOVED or name in SUCCESSORS:
        raise SparseDictError(
            f"encoder {name!r} was an experiment of version 0.1.0 and is gone; use version 0.1.0 for what was made with it, or train again "
            f"with {' or '.join(_ENCODERS)}."
        )
    if name not in _ENCODERS:
        near = difflib.get_close_matches(name, _ENCODERS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise SparseDictError(f"unknown encoder {name!r}{hint}: choose one of {', '.join(_ENCODERS)}.")
    return _ENCODERS[name](**settings)
