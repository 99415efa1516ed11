"""The encoders by name. A new one is one file beside these and one line here."""

from __future__ import annotations

import difflib
from typing import Any

from ..errors import SparseDictError
from .attention import AttentionEncoder
from .base import Encoder
from .batch_topk import BatchTopKEncoder
from .ista import IstaEncoder
from .jumprelu import JumpReluEncoder
from .linear import LinearEncoder
from .quantile import QuantileEncoder
from .relu_l1 import ReluL1Encoder
from .soft_l1 import SoftL1Encoder
from .soft_quantile import SoftQuantileEncoder
from .topk import TopKEncoder

_ENCODERS: dict[str, type[Encoder]] = {
    encoder.name: encoder
    for encoder in (
        QuantileEncoder,
        SoftQuantileEncoder,
        LinearEncoder,
        ReluL1Encoder,
        SoftL1Encoder,
        JumpReluEncoder,
        TopKEncoder,
        BatchTopKEncoder,
        AttentionEncoder,
        IstaEncoder,
    )
}

__all__ = ["Encoder", "encoder_names", "get_encoder"]


def encoder_names() -> tuple[str, ...]:
    """All registered names, the default first."""
    return tuple(_ENCODERS)


def get_encoder(name: str, /, **settings: Any) -> Encoder:
    """The encoder of that name. Raises SparseDictError for an unknown name or setting, or a setting out of its bounds."""
    if name not in _ENCODERS:
        near = difflib.get_close_matches(name, _ENCODERS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise SparseDictError(f"unknown encoder {name!r}{hint}: choose one of {', '.join(_ENCODERS)}.")
    return _ENCODERS[name](**settings)
