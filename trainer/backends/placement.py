"""Which of a pipeline's parts are on the accelerator: the denoiser, and text encoders and VAE only while something is encoded or decoded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .sharded import is_sharded
from .swapped_blocks import swap_blocks

#: What a part needs beside its weights to compute, as a share of them.
WORKING = 1.25
#: Of the free memory, what a denoiser may take as a whole; larger ones leave their blocks outside.
MOST = 0.9


class Placement:
    """Parts come when they are used and leave when the denoiser computes next. Where both do not fit at once, the denoiser makes room."""

    def __init__(self, denoiser: nn.Module, device: torch.device, movable: bool = True) -> None:
        """`movable`: whether the denoiser may leave; quantised weights may not, nor may those that are elsewhere already."""
        self.denoiser, self.device, self.movable = denoiser, device, movable and not is_sharded(denoiser)
        self.visitors: list[nn.Module] = []
        self.swapped = False  # whether blocks wait elsewhere, and are recomputed in training
        if device.type != "cpu":  # where models are loaded
            if self.movable and weight_bytes(denoiser) > MOST * self._free():
                self.keep_blocks_away()
            if self.movable:
                denoiser.to(device)
            denoiser.register_forward_pre_hook(self._leave)

    def keep_blocks_away(self) -> None:
        """From now on the denoiser's blocks wait in the CPU's memory and come when they compute. Quantised ones cannot: they are no plain tensors."""
        if self.movable and getattr(self.denoiser, "hf_quantizer", None) is None:
            self.denoiser.to("cpu")
            swap_blocks(self.denoiser, self.device)
            self.movable, self.swapped = False, True

    @contextlib.contextmanager
    def visit(self, *parts: nn.Module) -> Iterator[torch.device]:
        """The parts on the device within the block; yields where they are: the CPU for parts that the device cannot hold."""
        new = [part for part in parts if not any(part is visitor for visitor in self.visitors)]
        needed = WORKING * sum(weight_bytes(part) for part in new)
        if self.device.type == "cpu" or needed > self._total():
            yield torch.device("cpu")
            return
        crowded = needed > self._free() and self.movable
        if crowded:
            self._leave()
            self.denoiser.to("cpu")
            self._empty_cache()
            new = list(parts)
        for part in new:
            part.to(self.device)
        self.visitors += new
        try:
            yield self.device
        finally:
            if crowded:
                self._leave()
                self.denoiser.to(self.device)

    def _leave(self, *call: Any) -> None:
        for part in self.visitors:
            part.to("cpu")
        if self.visitors:
            self._empty_cache()
        self.visitors = []

    def _free(self) -> float:
        return torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else float("inf")

    def _total(self) -> float:
        return torch.cuda.mem_get_info(self.device)[1] if self.device.type == "cuda" else float("inf")

    def _empty_cache(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def weight_bytes(module: nn.Module) -> int:
    return sum(held.nbytes for tensor in (*module.parameters(), *module.buffers()) for held in held_by(tensor))


def held_by(tensor: Tensor) -> list[Tensor]:
    """What of a tensor is here: quantised ones, and parts of one that is spread over processes, tell the size that they stand for."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    parts = [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
    return [held for part in parts if isinstance(part, Tensor) for held in held_by(part)]
