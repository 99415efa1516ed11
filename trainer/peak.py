"""How much memory a stretch of code needs at its peak, counted by the tensors that live; on fake tensors as on real ones.

`torch.distributed._tools` has a tracker too; it refuses frozen parameters, which is what a base is made of.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: What CUDA's allocator rounds up to.
ROUNDING = 512


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of the storages that operations within the block make. `peak` is the most that lived at once, `live` what does now.

    `known` are tensors that were there before: weights, mostly. They are not counted.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen: dict[int, Any] = {id(storage): storage for storage in (tensor.untyped_storage() for tensor in known)}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self._count(value)
        return out

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._seen:
            return
        size = -(-storage.nbytes() // ROUNDING) * ROUNDING

        def gone(reference: Any) -> None:
            self.live -= size
            self._seen.pop(key, None)

        self._seen[key] = weakref.ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)
