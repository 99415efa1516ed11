"""Axes for the host's XYZ plot: they change the prompt's first tag."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import files
from .network import CHANGES

PREFIX = "[SparseDict]"


def setter(*names: str) -> Callable[[Any, Any, Any], None]:
    """An axis that sets the first of `names` in the tag and takes the others away."""

    def apply(p: Any, value: Any, values: Any) -> None:
        rest = dict.fromkeys(names[1:])
        setattr(p, CHANGES, {**getattr(p, CHANGES, {}), **rest, names[0]: value})

    return apply


def register() -> bool:
    """Add the axes, once; False where the host has no XYZ plot."""
    from modules import scripts

    module = next((data.module for data in scripts.scripts_data if getattr(data.module, "axis_options", None) and hasattr(data.module, "AxisOption")), None)
    if module is None or any(option.label.startswith(PREFIX) for option in module.axis_options):
        return module is not None
    axis = module.AxisOption
    module.axis_options.extend(
        [
            axis(f"{PREFIX} strength", float, setter("strength")),
            axis(f"{PREFIX} share kept", float, setter("keep", "top", "atoms")),
            axis(f"{PREFIX} atoms kept", int, setter("top", "keep", "atoms")),
            axis(f"{PREFIX} adapter", str, setter("name"), choices=lambda: list(files.names(files.default_folder()))),
        ]
    )
    return True
