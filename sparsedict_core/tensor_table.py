"""The tensors of a site in its file: one table that saving, loading and checking go by.

A new tensor is one row here and one argument of `SparseSite`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from .bounds import MOST_ATOMS, MOST_IMPORTANCE
from .site import SparseSite

Sizes = Mapping[str, int]


class Row(NamedTuple):
    """`shape` names sizes (`site_sizes`). `dtype` None: what the file is saved as, for the many numbers that make up its bytes."""

    name: str  # in the file, behind the site's key and a dot
    attribute: str  # of the site, and the name of the argument
    shape: tuple[str, ...]
    dtype: torch.dtype | None = None
    optional: bool = False
    sound: Callable[[Tensor], Tensor] | None = None  # which of its values may be
    otherwise: str = ""  # what is said of the others


# Ranks, statistics and linear systems are not worth rounding, and what a half cannot hold (means above 65,504) must not end a run's saving.
_FULL = torch.float32

TABLE = (
    Row("encoder.weight", "encoder_weight", ("atoms", "encoder")),
    Row("encoder.basis", "encoder_basis", ("encoder", "d_in"), optional=True),
    Row("encoder.bias", "encoder_bias", ("atoms",)),
    Row("encoder.mean", "encoder_mean", ("d_in",), _FULL, optional=True),
    Row("encoder.scale", "encoder_scale", ("d_in",), _FULL, optional=True, sound=lambda t: t > 0, otherwise="values of 0 or less"),
    Row("encoder.threshold", "threshold", (), _FULL),
    Row("dictionary.weight", "dictionary_weight", ("atoms", "dictionary")),
    Row("dictionary.basis", "dictionary_basis", ("dictionary", "d_out"), optional=True),
    Row("importance", "importance", ("atoms",), _FULL, sound=lambda t: (t >= 0) & (t <= MOST_IMPORTANCE), otherwise=f"values below 0 or above {MOST_IMPORTANCE:g}"),
    Row("atom_ids", "atom_ids", ("atoms",), torch.int32, sound=lambda t: (t >= 0) & (t < MOST_ATOMS), otherwise=f"ids outside of 0 to {MOST_ATOMS - 1:,}"),
    Row("firing", "firing", ("atoms",), _FULL, optional=True, sound=lambda t: (t >= 0) & (t <= 1), otherwise="values that are no shares from 0 to 1"),
    Row("moments", "moments", ("atoms", "atoms"), _FULL, optional=True),
)
#: The statistics of a site that standardises nothing are not stored.
_STATISTICS = ("encoder.mean", "encoder.scale")


def site_tensors(site: SparseSite) -> Iterator[tuple[Row, Tensor]]:
    """The site's tensors with their rows; what is the identity or absent is left out."""
    left_out = () if site.standardised else _STATISTICS
    held = {**site._parameters, **site._buffers}
    for row in TABLE:
        tensor = held[row.attribute]
        if tensor is not None and row.name not in left_out:
            yield row, tensor.detach()


def site_sizes(d_in: int, d_out: int, shapes: Mapping[str, tuple[int, ...]]) -> Sizes:
    """What the shapes of a site's tensors must agree on, from its widths and the tensors' shapes by name."""

    def first(name: str, least: int = 0) -> int:
        return max(least, *shapes[name][:1], 0)

    return {
        "atoms": first("encoder.weight"),
        "d_in": d_in,
        "d_out": d_out,
        # No basis is of rank 0: a shape without it is wrong.
        "encoder": first("encoder.basis", 1) if "encoder.basis" in shapes else d_in,
        "dictionary": first("dictionary.basis", 1) if "dictionary.basis" in shapes else d_out,
    }


def shape_of(row: Row, sizes: Sizes) -> tuple[int, ...]:
    """The shape that a row's tensor must have."""
    return tuple([sizes[name] for name in row.shape])
