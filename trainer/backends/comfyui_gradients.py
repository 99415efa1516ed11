"""Gradients through operations of the host that have none of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def kernels_with_gradients() -> Iterator[None]:
    """Newer hosts rotate and normalise queries and keys in kernels without a backward; the kernels' own references, in torch, have one.

    Only some of the host's families ask for these by themselves in training.
    """
    try:
        import comfy_kitchen
        from comfy_kitchen.backends import eager
    except ImportError:  # an older host
        yield
        return
    names = [name for name in eager.__all__ if "rope" in name and not name.endswith("_") and hasattr(comfy_kitchen, name)]
    before = {name: getattr(comfy_kitchen, name) for name in names}
    try:
        for name in names:
            setattr(comfy_kitchen, name, getattr(eager, name))
        yield
    finally:
        for name, function in before.items():
            setattr(comfy_kitchen, name, function)
