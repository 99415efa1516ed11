"""A trained LoRA made smaller without further training: by SVD, or by the magnitude of its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from .peers import TrainedPeer


def factors(lora: TrainedPeer) -> Iterator[tuple[str, str, Tensor, Tensor]]:
    """(name of A, name of B, A (r, d_in), B (d_out, r)) of each Linear."""
    for name, down in lora.weights.items():
        if "lora_A" in name:
            up = name.replace("lora_A", "lora_B")
            yield name, up, down, lora.weights[up]


def cut_by_svd(lora: TrainedPeer, rank: int) -> TrainedPeer:
    """The products B·A at a lower rank, as near as can be (Eckart and Young)."""
    weights = {}
    for down_name, up_name, down, up in factors(lora):
        u, s, v = torch.linalg.svd(up @ down, full_matrices=False)
        root = s[:rank].sqrt()
        weights[down_name], weights[up_name] = root[:, None] * v[:rank], u[:, :rank] * root
    return replace(lora, weights=weights, size=rank, parameters=sum(w.numel() for w in weights.values()))


def cut_by_magnitude(lora: TrainedPeer, rank: int) -> TrainedPeer:
    """The largest numbers of A and B in each Linear, as many as a LoRA of `rank` has; the rest are 0.

    Where the numbers stand isn't counted, in LoRA's favour.
    """
    weights = {}
    for down_name, up_name, down, up in factors(lora):
        number = rank * (down.shape[1] + up.shape[0])
        least = torch.cat([down.abs().flatten(), up.abs().flatten()]).topk(number).values[-1]
        weights[down_name], weights[up_name] = down * (down.abs() >= least), up * (up.abs() >= least)
    return replace(lora, weights=weights, parameters=sum(int(w.count_nonzero()) for w in weights.values()))


CUTS: dict[str, Callable[[TrainedPeer, int], TrainedPeer]] = {"svd": cut_by_svd, "magnitude": cut_by_magnitude}
