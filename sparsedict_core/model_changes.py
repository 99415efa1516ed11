"""An adapter stays on a model whose modules are exchanged after it was attached: projections that are fused or taken apart again,
Linears that another library puts in their place, new blocks. Looked at before each step, as hooks stay on the modules that are gone.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from .module_hook import ModuleHook, Uncopied
from .places import FUSED, are_fused, may_be_fused
from .site import Place

if TYPE_CHECKING:
    from .attachment import Attachment

#: (parent, None for the model itself; name; the module that was there)
_Link = tuple[nn.Module | None, str, nn.Module | None]


class ModelWatch(Uncopied):
    """What an attachment knows of the model that it is on. In compiled code nothing is looked at: it is compiled anew where modules change,
    and has the sites then of what was found in the last step outside of it."""

    def __init__(self, attachment: Attachment, model: nn.Module, paths: Iterable[str], find: Callable[[nn.Module], Mapping[str, Place]]) -> None:
        """`paths` lead to the sites below `model`; `find` finds their places anew."""
        self.attachment, self.paths, self.find = attachment, list(paths), find
        self._model = weakref.ref(model)
        self._remember(model)

    def register(self, model: nn.Module) -> list[RemovableHandle]:
        """`model` may be compiled: what is on the module around it runs outside of the compiled code."""
        inner: nn.Module = getattr(model, "_orig_mod", model)
        watched = {id(each): each for each in (inner, model)}.values()
        return [*(each.register_forward_pre_hook(self) for each in watched), inner.register_forward_hook(_FirstStep(self.attachment))]

    def __call__(self, model: nn.Module, args: Any) -> None:
        if torch.compiler.is_compiling():
            return
        model = getattr(model, "_orig_mod", model)
        if model is self._model() and self._changed(model):  # not a replica, which shares its hooks
            self.attachment.move(self.find(model))
            self._remember(model)

    def _remember(self, model: nn.Module) -> None:
        links: dict[tuple[int, str], _Link] = {}
        fused: dict[int, tuple[nn.Module | None, bool]] = {}
        for path in self.paths:
            parent: nn.Module = model
            for name in path.split("."):
                known = None if parent is model else parent  # the model holds this, and is not to be held by it
                if may_be_fused(parent):
                    fused[id(parent)] = known, are_fused(parent)
                for each in (name, *FUSED) if fused.get(id(parent), (None, False))[1] else (name,):
                    links[id(parent), each] = known, each, parent._modules.get(each)
                if (child := parent._modules.get(name)) is None:
                    break
                parent = child
            while (inner := parent._modules.get("base_layer")) is not None:
                links[id(parent), "base_layer"] = parent, "base_layer", inner
                parent = inner
        self._links, self._fused = list(links.values()), list(fused.values())

    def _changed(self, model: nn.Module) -> bool:
        return any((model if parent is None else parent)._modules.get(name) is not child for parent, name, child in self._links) or any(
            are_fused(model if parent is None else parent) != before for parent, before in self._fused
        )


class _FirstStep(Uncopied):
    """Says which sites did nothing in the first step: where a model takes their weights and not their Linears, no hook is called."""

    def __init__(self, attachment: Attachment) -> None:
        self.attachment, self.over = attachment, False

    def __call__(self, model: nn.Module, args: Any, output: Any) -> None:
        if self.over or torch.compiler.is_compiling():
            return
        self.over = True
        hooks = [hook for module in self.attachment.modules() for hook in module._forward_hooks.values() if isinstance(hook, ModuleHook)]
        idle = [call.key for hook in hooks if hook.attachment is self.attachment and not hook.called for call in hook.calls]
        if idle:
            warnings.warn(
                f"{len(idle)} of {len(self.attachment.adapter.sites)} sites of the adapter were not called in this step, the first is {idle[0]}; "
                "the model does without these Linears, so their atoms change nothing.",
                stacklevel=2,
            )
