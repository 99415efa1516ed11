"""A denoiser that is larger than its device: the blocks' weights stay in the CPU's memory, and are on the device while their block computes.

In training a block runs a second time in the backward, which fetches it again: what autograd keeps of that run lives until the block's
gradients are done. So each block is recomputed, by the wrapper here and not by the model's own way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks that a denoiser is a row of, the innermost where blocks hold blocks: what is recomputed, or kept elsewhere, as one."""
    names = {name for name in getattr(model, "_no_split_modules", None) or [] if "Block" in name}
    found = [module for module in model.modules() if type(module).__name__ in names]
    return [block for block in found if not any(type(inner).__name__ in names for inner in block.modules() if inner is not block)]


def swap_blocks(model: nn.Module, device: torch.device) -> int:
    """Everything but the blocks goes to `device`; the blocks come when they are called. Returns the number of blocks."""
    blocks = repeated_blocks(model)
    inside = {id(tensor) for block in blocks for tensor in tensors_of(block)}
    for tensor in tensors_of(model):
        if id(tensor) not in inside:
            tensor.data = tensor.data.to(device)
    for block in blocks:
        block.forward = fetched(block, device)
    return len(blocks)


def fetched(block: nn.Module, device: torch.device) -> Callable[..., Any]:
    """The block's forward with its weights on `device` meanwhile, recomputed where there are gradients."""
    for tensor in tensors_of(block):
        tensor.data = put_away(tensor.data, device)

    def run(*args: Any, **kwargs: Any) -> Any:
        # Other tensors in their places, which autograd may keep: a weight that changed under its hands would be the waiting one.
        here = {name: fetch(tensor.data, device) for name, tensor in (*block.named_parameters(), *block.named_buffers())}
        del block.forward
        try:
            return torch.func.functional_call(block, here, args, kwargs)
        finally:
            block.forward = call

    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled():
            return torch.utils.checkpoint.checkpoint(run, *args, use_reentrant=False, **kwargs)
        return run(*args, **kwargs)

    return call


def tensors_of(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def put_away(tensor: Tensor, device: torch.device) -> Tensor:
    """Where it waits: memory that a GPU can copy from without waiting."""
    return tensor.cpu().pin_memory() if device.type == "cuda" else tensor.cpu()


def fetch(kept: Tensor, device: torch.device) -> Tensor:
    return kept.to(device, non_blocking=True)
