"""One process or several: what the loop needs to know of the others. accelerate is imported only when there are others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class Processes:
    """This process's place among those that train together."""

    def __init__(self, device: torch.device) -> None:
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = 0
        self._accelerator: Any = None
        if self.world > 1:
            from accelerate import Accelerator

            self._accelerator = Accelerator(cpu=device.type == "cpu")
            self.rank = self._accelerator.process_index

    @property
    def main(self) -> bool:
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """The mean over processes."""
        return value if self._accelerator is None else self._accelerator.reduce(value, reduction="mean")

    def gather(self, value: Tensor) -> Tensor:
        """Concatenated over processes along the first dimension; every process has as many rows."""
        return value if self._accelerator is None else self._accelerator.gather(value)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process runs the block before the others, which then find its cache."""
        if self._accelerator is None:
            yield
        else:
            with self._accelerator.main_process_first():
                yield
