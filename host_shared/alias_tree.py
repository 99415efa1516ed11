"""A host's modules under the names that files have for them, as a module tree that an adapter can be trained on."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..sparsedict_core.site import Place
from ..sparsedict_core.site_discovery import Discovery


class AliasTree(nn.Module):
    """Plain containers whose leaves are the host's modules; `discovery` is what `discover_sites` answers for it.

    The host's modules know nothing of it. Its parameters are the host's own, so don't move or cast it.
    """

    discovery: Discovery
    places: dict[str, Place]
    halvings: int = 0  # of a side on the way to the deepest block, where the host doesn't say

    def __init__(self, discovery: Discovery | None = None) -> None:
        super().__init__()
        if discovery is not None:
            self.discovery = discovery


def build_tree(modules: dict[str, nn.Module], root: nn.Module) -> nn.Module:
    """`modules` at their dotted paths below `root`; numbered children become a ModuleList, gaps in it empty modules."""
    nested: dict[str, Any] = {}
    for path, module in modules.items():
        inner = nested
        *parents, last = path.split(".")
        for part in parents:
            inner = inner.setdefault(part, {})
        inner[last] = module
    return _build(nested, root)


def _build(nested: dict[str, Any], root: nn.Module | None = None) -> nn.Module:
    built = {name: _build(child) if isinstance(child, dict) else child for name, child in nested.items()}
    if root is None and built and all(name.isdigit() for name in built):
        count = max(int(name) for name in built) + 1
        return nn.ModuleList([built.get(str(number), nn.Module()) for number in range(count)])
    root = nn.Module() if root is None else root
    for name, module in built.items():
        root.add_module(name, module)
    return root
