"""Which Linears close an attention, seen rather than written down: one forward is followed, tensor by tensor.

What an attention returns is marked. Marks sit on storages, pass every operation, and end at the Linear that takes them: that is a
site. A Linear so found marks its own output with its path; where that never reaches the model's output, nothing reads it.

Only what runs is seen. An attention whose kernel no operation's name tells, or that is written out in elementwise products, is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from .attention_inputs import AttentionInputs, block_of, storage

_ATTENTION = re.compile(r"attention|attn|scaled_dot_product")  # of torch, flash, xformers, the hosts' kernels
_PRODUCTS = ("aten.bmm", "aten.baddbmm")  # of two activations: an attention written out, with a softmax or linear


class Output(NamedTuple):
    """A Linear that closes an attention."""

    path: str
    attention: str  # path of the module that called the attention
    read: bool  # whether it reaches the model's output


class Seen(NamedTuple):
    """What one forward of a model showed."""

    outputs: list[Output]  # in the order in which they ran
    inputs: Mapping[str, Mapping[str, tuple[int, int]]]  # path of a Linear → "q", "k", "v" → the slice of its output channels


class _Call(NamedTuple):
    """An attention's mark."""

    module: str
    product: bool  # only a product of two activations was seen


_Marks = frozenset["_Call | str"]  # a str is the path of a Linear that was found


def follow(model: nn.Module, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Seen:
    """The Linears around the attentions of `model`, for a call with `args` and `kwargs`.

    Nothing is computed where the model's shapes don't depend on values: activations are then fake tensors, while masks, positions and
    noise levels stay real. The model, its hooks and its weights are left as they are.
    """
    kwargs = kwargs or {}
    try:
        with torch.no_grad():
            fake = FakeTensorMode(allow_non_fake_inputs=True)
            return _follow(model, *tree_map_only(Tensor, lambda t: fake.from_tensor(t) if _is_activation(t) else t, (args, kwargs)))
    except Exception:  # whatever a model does with values that aren't there; with the true ones an error is the model's own
        with torch.no_grad():
            return _follow(model, args, kwargs)


def follow_a_run(model: nn.Module, run: Callable[[], Any]) -> Seen:
    """`follow` for the first call that `run()` makes of the model; nothing is seen if it makes none."""
    found: list[Seen] = []

    def at_first_call(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        handle.remove()
        found.append(follow(model, args, kwargs))

    handle = model.register_forward_pre_hook(at_first_call, with_kwargs=True)
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            run()
    finally:
        handle.remove()
    return found[0] if found else Seen([], {})


def is_linear(module: nn.Module) -> bool:
    """Also what quantisers and adapters put in a Linear's place."""
    return isinstance(getattr(module, "in_features", None), int) and isinstance(getattr(module, "out_features", None), int)


def _is_activation(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.ndim >= 3


def _follow(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Seen:
    flow, handles = _Flow(model), []
    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(flow.entering(path), with_kwargs=True))
        handles.append(module.register_forward_hook(flow.leaving(path)))
    try:
        with torch.compiler.set_stance("force_eager"), flow, _Calls(flow):
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return Seen(flow.outputs(), flow.inputs.slices())


class _Flow(TorchDispatchMode):
    """The marks, and what is known of the modules that run."""

    supports_higher_order_operators = True  # flex_attention

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.weights = {None, *map(storage, [*model.parameters(), *model.buffers()])}
        self.marks: dict[StorageWeakRef | None, _Marks] = {}
        self.sites: dict[str, set[_Call]] = {}
        self.read: set[str] = set()
        self.stack: list[str] = []  # paths of the modules that run now
        self.linear: str | None = None  # the outermost Linear among them
        self.inputs = AttentionInputs()

    def outputs(self) -> list[Output]:
        # A product counts only where the module that made it showed no attention proper.
        proper = {call.module for calls in self.sites.values() for call in calls if not call.product}
        found = []
        for path, calls in self.sites.items():
            counting = sorted(call.module for call in calls if not call.product or call.module not in proper)
            if counting:
                found.append(Output(path, counting[0], path in self.read))
        return found

    # -- marks ------------------------------------------------------------------------------------------------

    def of(self, tree: Any, only_linears: bool = False) -> _Marks:
        """The marks of all tensors in `tree`."""
        marks: _Marks = frozenset().union(*(self.marks.get(storage(tensor), frozenset()) for tensor in _tensors(tree)))
        return frozenset(mark for mark in marks if isinstance(mark, str)) if only_linears else marks

    def put(self, tree: Any, marks: _Marks) -> None:
        for key in set(map(storage, _tensors(tree))) - self.weights:
            self.marks[key] = self.marks.get(key, frozenset()) | marks  # a view, or a write in place, adds to what is there

    def attention(self, out: Any, args: tuple[Any, ...], kwargs: dict[str, Any], product: bool = False) -> None:
        call = _Call(self.stack[-1] if self.stack else "", product)
        self.put(_tensors(out)[:1], self.of((args, kwargs), only_linears=not product) | {call})
        if not product:
            self.inputs.attention(args, kwargs, call.module)

    def __torch_dispatch__(self, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        given = _tensors((args, kwargs)) if self.linear is None else []
        held = [self.inputs.held(tensor) for tensor in given]
        out, name = op(*args, **kwargs), str(op).rsplit(".", 1)[0]
        product = name in _PRODUCTS and not self.weights & set(map(storage, _tensors(args)))
        if self.linear is None and (product or _ATTENTION.search(name)):
            self.attention(out, args, kwargs, product)
            return out
        if any(held):
            self.inputs.operation(op, given, held, out)
        if marks := self.of((args, kwargs), only_linears=self.linear is not None or self._meets_the_stream(name, args)):
            self.put((out, args[0] if name.endswith("_") else None), marks)  # in place, a fake may come back instead
        return out

    def _meets_the_stream(self, name: str, args: tuple[Any, ...]) -> bool:
        """An attention that is added to the residual stream before any Linear has no output."""
        tensors = _tensors(args) if name in ("aten.add", "aten.add_") else []
        fed = [any(isinstance(mark, _Call) for mark in self.of(tensor)) for tensor in tensors]
        return len(tensors) == 2 and tensors[0].shape == tensors[1].shape and fed[0] != fed[1]

    # -- modules ----------------------------------------------------------------------------------------------

    def entering(self, path: str) -> Callable[..., None]:
        within = block_of(path)

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.stack.append(path)
            if self.linear is not None or not is_linear(module):
                return
            self.linear = path
            # Attention and Linear share a block; poolers of a text drop out.
            calls = {mark for mark in self.of((args, kwargs)) if isinstance(mark, _Call) and within and f"{mark.module}.".startswith(within)}
            if calls:
                self.sites.setdefault(path, set()).update(calls)

        return enter

    def leaving(self, path: str) -> Callable[..., None]:
        def leave(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            del self.stack[self.stack.index(path) :]
            if self.linear == path:
                self.linear = None
                self.put(out, frozenset(self.sites.keys() & {path}))
                self.inputs.linear(path, out)
            if not path:  # the model itself
                self.read.update(mark for mark in self.of(out if _tensors(out) else vars(out)) if isinstance(mark, str))

        return leave


class _Calls(TorchFunctionMode):
    """Sees scaled_dot_product_attention where a device takes it apart before it is dispatched."""

    def __init__(self, flow: _Flow) -> None:
        super().__init__()
        self.flow = flow

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.flow.linear is None and _ATTENTION.search(getattr(func, "__name__", "")):
            self.flow.attention(out, args, kwargs or {})
        return out


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]

