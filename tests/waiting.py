"""What would wait for a GPU, counted on a CPU: reads of values, and sizes and ways that hang on them."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

#: What leaves the device, or asks it how many there are.
READS = {"item", "tolist", "numpy", "cpu", "__float__", "__bool__", "__int__", "__index__", "is_nonzero"}
SIZED_BY_VALUES = {"aten::nonzero", "aten::masked_select", "aten::_local_scalar_dense", "aten::equal", "aten::_unique2", "aten::repeat_interleave.Tensor"}


class Values(TorchDispatchMode):
    """Operations whose result's size, or the program's way, hangs on values."""

    def __init__(self, counts: Counter) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name()
        by_mask = name.startswith(("aten::index.", "aten::index_put")) and any(t is not None and t.dtype == torch.bool for t in args[1])
        if name in SIZED_BY_VALUES or by_mask:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


class Reads(TorchFunctionMode):
    def __init__(self, counts: Counter) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in READS:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def waits():
    """Counts of what would wait for a GPU within the block."""
    counts: Counter = Counter()
    with Values(counts), Reads(counts):
        yield counts
