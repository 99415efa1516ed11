"""The average of an adapter over its steps, newer ones weighing more: what is saved and shown instead of the last step's numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from ..sparsedict_core.adapter import SparseAdapter


class Average:
    """Of all numbers that steps change; thresholds too, as they belong to the weights that they were found for."""

    def __init__(self, adapter: SparseAdapter, decay: float) -> None:
        self.decay, self.adapter = decay, adapter
        self.values = {name: value.detach().clone() for name, value in self._own().items()}

    def _own(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.adapter.state_dict().items() if value.is_floating_point()}

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """After a step, of which `steps` are done now. Early steps count less: they are far from where it ends."""
        kept = min(self.decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(list(self.values.values()), list(self._own().values()), 1 - kept)

    @torch.no_grad()
    def apply(self) -> None:
        """The adapter becomes the average."""
        for name, value in self._own().items():
            value.copy_(self.values[name])

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """The adapter is the average within the block."""
        own = {name: value.clone() for name, value in self._own().items()}
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in self._own().items():
                    value.copy_(own[name])
