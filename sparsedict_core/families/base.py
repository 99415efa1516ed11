"""What a family says, and the layout that most share: blocks with attn1 (self) and attn2 (cross)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..site import SiteName


@dataclass(frozen=True)
class Family:
    """`sites` yields names without the component, in the order of execution; `name` may look at the model."""

    classes: tuple[str, ...]
    component: str
    name: Callable[[Any], str]
    sites: Callable[[Any], Iterator[SiteName]]


def has(module: Any, name: str) -> bool:
    """Whether the attribute is there and is not None."""
    return getattr(module, name, None) is not None


def blocks_with_self_and_cross(blocks: nn.ModuleList, prefix: str, first_layer: int = 0) -> Iterator[SiteName]:
    """`<prefix>.N.attn1.to_out.0` as stream self, `attn2` as stream cross."""
    for number, block in enumerate(blocks):
        for attention, stream in (("attn1", "self"), ("attn2", "cross")):
            if has(block, attention):
                yield SiteName(f"{prefix}.{number}.{attention}.to_out.0", first_layer + number, stream)
