"""One process or several: what the loop needs to know of the others. accelerate is imported only when there are others."""

from __future__ import annotations

import os
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

    @property
    def local_main(self) -> bool:
        """The first of its machine, which keeps what the others of it need too."""
        return self._accelerator is None or self._accelerator.is_local_main_process

    def sum(self, value: Tensor) -> Tensor:
        """The sum over processes."""
        return value if self._accelerator is None else self._accelerator.reduce(value, reduction="sum")

    def mean(self, value: Tensor) -> Tensor:
        """The mean over processes."""
        return value if self._accelerator is None else self._accelerator.reduce(value, reduction="mean")

    def any(self, value: Tensor | bool) -> Tensor:
        """Whether it is so in any process, elementwise; the answer is the same in all of them."""
        flag = torch.as_tensor(value)
        if self._accelerator is None:
            return flag
        return self.mean(flag.to(self._accelerator.device, torch.float32)).gt(0).to(flag.device)

    def wait(self) -> None:
        """Until every process is here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()
