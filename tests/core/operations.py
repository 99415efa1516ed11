"""Counts torch's operations within a block."""

from __future__ import annotations

from collections import Counter

from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """`counted`: how often each was called."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter = Counter()

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        self.counted[op] += 1
        return op(*args, **(kwargs or {}))
