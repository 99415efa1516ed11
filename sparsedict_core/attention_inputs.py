"""Which output channels of a Linear become an attention's q, k and v, told by the strides of the views that are taken of its output.

Neither values nor gradients are needed. Channels that are copied in another order are not followed: of such a Linear nothing is told.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

ROLES = ("q", "k", "v")
_ARGUMENTS = {"q": ("query", "q"), "k": ("key", "k"), "v": ("value", "v")}
_MOST = 8  # Linears that a q, k or v is made of, in joint attention; what is made of more is the residual stream

_Spans = tuple[tuple[int, int], ...]  # (start, stop), sorted and apart
_Held = dict[str, _Spans]  # path of a Linear → the channels of it that a tensor holds


class AttentionInputs:
    """What the tensors of one forward hold of the outputs of Linears, and what of it arrived in attentions."""

    def __init__(self) -> None:
        self.outputs: dict[StorageWeakRef | None, tuple[frozenset[str], int]] = {}  # by storage: whole outputs, and their width
        self.parts: dict[StorageWeakRef | None, _Held] = {}  # by storage: whatever was made of them
        self.arrived: dict[str, dict[str, _Spans]] = {}  # path → role → channels

    def slices(self) -> dict[str, dict[str, tuple[int, int]]]:
        """Role → (start, stop) by path, for the Linears whose q, k and v, as far as they come from it, are a slice each."""
        found = {}
        for path, roles in self.arrived.items():
            merged = _merged(span for spans in roles.values() for span in spans)
            apart = sum(stop - start for start, stop in merged) == sum(stop - start for spans in roles.values() for start, stop in spans)
            if apart and all(len(spans) == 1 for spans in roles.values()):
                found[path] = {role: spans[0] for role, spans in sorted(roles.items(), key=lambda item: item[1])}
        return found

    def linear(self, path: str, out: Any) -> None:
        """A Linear returned `out` (..., channels)."""
        if not isinstance(out, Tensor) or (key := storage(out)) is None:
            return
        if out.is_contiguous() and out.storage_offset() == 0:
            self.outputs[key] = frozenset([path]), out.shape[-1]
        else:
            self.parts[key] = {path: ((0, out.shape[-1]),)}

    def attention(self, args: Sequence[Any], kwargs: dict[str, Any], module: str) -> None:
        """An attention was called in the module at the path `module`."""
        for position, role in enumerate(ROLES):
            given = next((kwargs[name] for name in _ARGUMENTS[role] if name in kwargs), args[position] if position < len(args) else None)
            for path, spans in self.held(given).items():
                if (block := block_of(path)) and f"{module}.".startswith(block):
                    roles = self.arrived.setdefault(path, {})
                    roles[role] = _merged([*roles.get(role, ()), *spans])

    def held(self, tensor: Any) -> _Held:
        """The channels that a tensor holds, by path."""
        key = storage(tensor) if isinstance(tensor, Tensor) else None
        if key in self.outputs:
            paths, width = self.outputs[key]
            return dict.fromkeys(paths, _channels(tensor, width))
        return self.parts.get(key, {})

    def operation(self, op: Any, given: Sequence[Tensor], held: Sequence[_Held], out: Any) -> None:
        """`op` made `out` of the tensors `given`, which held `held` before."""
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        whole = self._whole(op, given, made)
        # (q, k) in, (q, k) out.
        paired = len(made) > 1 and [t.shape for t in made] == [t.shape for t in given[: len(made)]]
        for i, tensor in enumerate(made):
            key = storage(tensor)
            if key is None or key in self.outputs:
                continue
            if whole is not None:
                self.outputs[key] = whole
                continue
            parts = dict(self.parts.get(key, {}))
            for holds in held[i : i + 1] if paired else held:
                for path, spans in holds.items():
                    parts[path] = _merged([*parts.get(path, ()), *spans])
            self.parts[key] = parts if len(parts) <= _MOST else {}

    def _whole(self, op: Any, given: Sequence[Tensor], made: Sequence[Tensor]) -> tuple[frozenset[str], int] | None:
        """What `made` is the whole output of: the values changed each for itself, or the tokens of several Linears one after another."""
        known = [self.outputs[key] for tensor in given if (key := storage(tensor)) in self.outputs]
        if len(made) != 1 or not known or not made[0].is_contiguous() or made[0].storage_offset():
            return None
        joined = str(op).startswith("aten.cat") and len(known) == len(given)
        if not joined and not ((len(known) == 1 and torch.Tag.pointwise in getattr(op, "tags", ())) or str(op).startswith(("aten._to_copy", "aten.clone"))):
            return None
        width = known[0][1]
        same = all(other == width for _, other in known) and made[0].shape[-1] == width
        full = all(tensor.is_contiguous() and tensor.shape[-1] == width for tensor in given if storage(tensor) in self.outputs)
        return (frozenset().union(*(paths for paths, _ in known)), width) if same and full else None


def storage(tensor: Tensor) -> StorageWeakRef | None:
    """What tells a tensor's memory from all others; None for a wrapper that has none."""
    try:
        return StorageWeakRef(tensor.untyped_storage())
    except (NotImplementedError, RuntimeError):
        return None


def block_of(path: str) -> str:
    """Up to the outermost numbered child, with a dot: one of the repeated blocks; "" for what is in none."""
    parts = path.split(".")
    number = next((i for i, part in enumerate(parts) if i and part.isdigit()), None)
    return "" if number is None else ".".join(parts[: number + 1]) + "."


def _channels(view: Tensor, width: int) -> _Spans:
    """The channels that a view of a contiguous (..., width) tensor shows."""
    run, steps = 1, []
    for size, stride in sorted(((n, s) for n, s in zip(view.shape, view.stride(), strict=True) if n > 1 and s % width), key=lambda dim: dim[1]):
        if stride == run:
            run *= size
        else:
            steps.append([stride * i for i in range(size)])
    starts = [(view.storage_offset() + sum(offsets)) % width for offsets in itertools.product(*steps)]
    return _merged((start, start + run) for start in starts) if all(start + run <= width for start in starts) else ((0, width),)


def _merged(spans: Iterable[tuple[int, int]]) -> _Spans:
    found: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(stop, found[-1][1])
        else:
            found.append((start, stop))
    return tuple(found)
