"""What a family of the host's models says: how to know one, and which module bears which of diffusers' names.

Layer numbers and streams are not said here: the core's family of the same layout reads them off diffusers' names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...sparsedict_core.families.base import Family


@dataclass(frozen=True)
class HostFamily:
    """`classes` are the host's own classes of such models, by name (`comfy.model_base`); `titles` is what people call them.

    `mark` is a module that all models of the family have. `names(modules, config)` maps diffusers' names (without the component) to
    the host's, for the attention outputs; names that lead to no module are no harm."""

    classes: tuple[str, ...]
    titles: str
    mark: str
    name: Callable[[str, frozenset[str], Mapping[str, Any]], str]  # of the class, the modules and the host's config
    names: Callable[[frozenset[str], Mapping[str, Any]], dict[str, str]]
    layout: Family


def renamed(modules: Iterable[str], table: Mapping[str, str]) -> dict[str, str]:
    """Diffusers' name → host's name, by `{pattern of a whole host name: replacement}`."""
    found = {}
    for module in modules:
        for pattern, replacement in table.items():
            match = re.fullmatch(pattern, module)
            if match is not None:
                found[match.expand(replacement)] = module
                break
    return found


def by_table(table: Mapping[str, str]) -> Callable[[frozenset[str], Mapping[str, Any]], dict[str, str]]:
    """`names` of a family that one table renames."""
    return lambda modules, config: renamed(modules, table)


def from_key_map(key_map: Mapping[str, Any], pattern: str) -> dict[str, str]:
    """The modules of one of the host's own key maps whose name in diffusers matches `pattern`; parts of fused weights are left out."""
    found = {}
    for name, target in key_map.items():
        if name.endswith(".weight") and isinstance(target, str) and re.fullmatch(pattern, name[: -len(".weight")]):
            found[name[: -len(".weight")]] = target.removesuffix(".weight")
    return found
