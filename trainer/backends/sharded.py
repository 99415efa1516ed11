"""A denoiser that is larger than any one device: each process holds its part of every block's weights, and gets the others' while the
block computes (torch's FSDP2). All processes must call it equally often.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn

from ...sparsedict_core.errors import SparseDictError
from .swapped_blocks import repeated_blocks


def shard(denoiser: nn.Module, device: torch.device) -> None:
    """Part the frozen weights, which are on the CPU, over the processes' devices. Raises SparseDictError where there is one process only."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        raise SparseDictError("a base is spread over several processes, this is one; start it as `accelerate launch --num_processes 2 -m sparsedict train … --shard`.")
    from accelerate import PartialState
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    PartialState(cpu=device.type == "cpu")  # which lets the processes know each other
    mesh = init_device_mesh(device.type, (world,))
    for module in (*repeated_blocks(denoiser), denoiser):
        fully_shard(module, mesh=mesh)


def is_sharded(module: Any) -> bool:
    # The mark of FSDP2: its classes are imported with all of torch.distributed.
    return hasattr(module, "set_requires_gradient_sync")
