"""Making the host's modules fit for autograd: their weights, their in-place additions, and the blocks that can be recomputed."""

from __future__ import annotations

import dis
import sys
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

#: What saves its input for the backward, frozen weights or not.
NORMS = ("rms_norm", "layer_norm")


class OutOfPlace(TorchFunctionMode):
    """`x += y` makes a new x. Blocks that add to their input would spoil what autograd has saved of it, or a second run's input.

    A bare `x.addcmul_(…)` cannot be answered by another x, so norms, which save what comes in, get a copy of it.
    """

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if getattr(function, "__name__", "") in NORMS and args[0].requires_grad:
            args = (args[0].clone(), *args[1:])
        # `x += y` and `x.add_(y)` come as one function; only the former binds the name to what it returns.
        if function is torch.Tensor.add_ and augments(sys._getframe(1)):
            return torch.add(*args)
        return function(*args, **(kwargs or {}))


def augments(frame: FrameType) -> bool:
    """Whether the statement that runs in `frame` is an augmented assignment."""
    return dis.opname[frame.f_code.co_code[frame.f_lasti]] in ("BINARY_OP", "INPLACE_ADD")


def normalise(model: nn.Module) -> None:
    """Weights loaded in inference mode as plain frozen tensors on the same memory: autograd cannot save the former."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if parameter.is_inference():
                plain = alias(parameter.data)
                if plain is not None:
                    module._parameters[name] = nn.Parameter(plain, requires_grad=False)
            else:
                parameter.requires_grad_(False)
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_inference():
                plain = alias(buffer)
                if plain is not None:
                    module._buffers[name] = plain


def alias(tensor: Tensor) -> Tensor | None:
    """A plain tensor on the same storage; None for packed weights (GGUF, scaled fp8), which are unpacked anew at each use."""
    if type(tensor) is not Tensor:
        return None
    empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return empty.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())


def outer_blocks(model: nn.Module) -> list[nn.Module]:
    """The outermost modules that have weights and are no mere lists."""
    found = []
    for child in model.children():
        if isinstance(child, nn.ModuleList | nn.Sequential | nn.ModuleDict):
            found += outer_blocks(child)
        elif any(True for _ in child.parameters()):
            found.append(child)
    return found
