"""What travels between the nodes: an adapter that is never changed in place, with a gain for each atom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from comfy_api.latest import io
from torch import Tensor

from ..host_shared.narrowing import select_left
from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.selection import Selection, SelectionResult

SparseDictSocket = io.Custom("SPARSE_DICT")
CATEGORY = "SparseDict"


@dataclass(frozen=True)
class SparseDict:
    """An adapter and its gains. Nodes make new ones; the adapter's tensors are shared and stay as loaded."""

    adapter: SparseAdapter
    name: str  # for messages, and the default name of a file
    gains: Mapping[str, Tensor] | None = None  # (m,) by site key; None: all ones

    def with_gains(self, gains: Mapping[str, Tensor]) -> SparseDict:
        """The same adapter with `gains` multiplied onto those it has."""
        if self.gains is not None:
            gains = {key: gains[key] * self.gains[key] if key in gains else self.gains[key] for key in {**self.gains, **gains}}
        return replace(self, gains=gains)

    def narrowed(self, selection: Selection) -> tuple[SparseDict, SelectionResult]:
        """The same adapter with gains of 0 for what `selection` leaves out; atoms that are out already are not considered.

        Raises SelectionError or AddressError.
        """
        result = select_left(self.adapter, self.gains, selection)
        return self.with_gains(result.gains()), result
