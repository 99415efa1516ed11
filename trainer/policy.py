"""What a training step is set to so that it fits into a device's memory: one policy for the command line, the node and `plan`.

Only what changes no result is chosen by itself: rows at once and recomputed blocks. Smaller weights are the user's choice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..sparsedict_core.data_flow import is_linear

if TYPE_CHECKING:
    from .backends.base import Backend

#: Made by `sparsedict plan --update`: footprints of the published models at two sizes.
TABLE = Path(__file__).with_name("footprints.json")
#: Bytes of a number in Linears, by how they are held; int8 has a scale a row, NF4 one for 64 numbers.
WEIGHTS = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "int8": 1.01, "fp8": 1.0, "nf4": 0.53}
#: Of a card's memory the part that tensors get: the driver, the libraries and an allocator's gaps take the rest.
USABLE = 0.9
GIB = 2**30
#: Pictures that are sampled at once on however large a device.
MOST_AT_ONCE = 64


@dataclass(frozen=True)
class Footprint:
    """Numbers of parameters, and bytes. Activations are those of one row at `side` × `side` pixels; more rows take as much each."""

    family: str
    parameters: int  # of the denoiser
    linear: int  # of them those in Linears, which quantisation makes smaller
    in_blocks: int  # of them those in the repeated blocks, which can be kept elsewhere
    largest_block: int
    largest_linear: int
    text: int  # of the text encoders
    adapter: int  # bytes, with gradients and the optimiser's state
    side: int
    row: int  # bytes with all activations kept
    row_recomputed: int  # bytes with recomputed blocks
    codec: int  # bytes of the VAE and of what it needs to decode one picture


@dataclass(frozen=True)
class Fit:
    """How a step is computed, and the bytes that it takes at its peak."""

    weights: str
    rows: int  # at once; the rest of the batch follows as accumulated parts
    recomputed: bool
    bytes: int

    def __str__(self) -> str:
        parts = [f"{self.rows} row{'s' if self.rows > 1 else ''} at once", *["recomputed blocks"] * self.recomputed]
        return ", ".join(parts)


def batch_for(parameters: int) -> int:
    """Rows of a whole step: large models learn from fewer, which take as long."""
    return 16 if parameters < 1e8 else 8 if parameters < 1.5e9 else 4


def weight_bytes(model: Footprint, weights: str) -> int:
    """Of the denoiser. Only Linears are quantised, and of fp8 only those in blocks; the rest stays bf16."""
    small = {"int8": model.linear, "nf4": model.linear, "fp8": model.in_blocks}.get(weights, model.parameters)
    return int(WEIGHTS[weights] * small + WEIGHTS["bf16"] * (model.parameters - small))


def peak(model: Footprint, weights: str, rows: int, recomputed: bool, blocks_on_cpu: bool = False) -> int:
    """Bytes of a training step: weights, the adapter with its optimiser, activations."""
    held = weight_bytes(model, weights)
    if blocks_on_cpu:
        held = held - int(WEIGHTS[weights] * (model.in_blocks - model.largest_block))
    elif weights == "fp8":
        held += int(WEIGHTS["bf16"] * model.largest_block)  # the one that computes
    elif weights in ("int8", "nf4"):
        held += int(WEIGHTS["bf16"] * model.largest_linear)
    wide = 2 if weights == "fp32" else 1  # activations are measured in bf16
    return held + model.adapter + wide * rows * (model.row_recomputed if recomputed else model.row)


def divisors(number: int) -> list[int]:
    """The largest first."""
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)}, reverse=True)


def ways(model: Footprint, batch: int, weights: str) -> Iterator[Fit]:
    """Every way to compute a step of `batch` rows, the fastest first."""
    for recomputed in (False, True):
        for rows in divisors(batch):
            yield Fit(weights, rows, recomputed, peak(model, weights, rows, recomputed))


def choose(model: Footprint, memory: float, batch: int, weights: str = "bf16") -> Fit | None:
    """The fastest way that fits into `memory` bytes, with the most rows at once; None where none does."""
    return next((way for way in ways(model, batch, weights) if way.bytes <= memory), None)


def usable(gibibytes: float) -> float:
    """Bytes of a card that is sold with so many gigabytes."""
    return gibibytes * GIB * USABLE


def free_memory(device: torch.device) -> float:
    """Bytes that a run may take of a device, its weights included, if nothing of this process is there yet."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return USABLE * (free + torch.cuda.memory_reserved(device))
    if device.type == "mps":
        return USABLE * torch.mps.recommended_max_memory()
    import psutil

    return USABLE * psutil.virtual_memory().available


def weights_of(backend: Backend) -> str:
    """How a base's weights are called in WEIGHTS. A GGUF file's are of 8 bits or fewer."""
    held = getattr(backend, "weights", None)
    if held is not None:
        return "int8" if held == "gguf" else held
    return {torch.float32: "fp32", torch.float16: "fp16"}.get(backend.dtype, "bf16")


def parameter_count(model: nn.Module) -> int:
    """Of the numbers that a model's weights stand for: packed ones tell it by their Linear's widths alone."""
    count = 0
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            count += module.in_features * module.out_features if name == "weight" and is_linear(module) else parameter.numel()
    return count


def sampling_rows(family: str, parameters: int, device: torch.device, side: int, weights: str = "bf16", memory: float | None = None) -> int:
    """Pictures of `side` × `side` pixels that are sampled and decoded at once; guidance makes two rows of each."""
    model = known(family, parameters, side)
    room = (free_memory(device) if memory is None else memory) - weight_bytes(model, weights)
    wide = 2 if weights == "fp32" else 1
    # A pass without gradients holds less than one with recomputed blocks; a decoder holds its activations of each picture.
    return max(1, min(MOST_AT_ONCE, int(room / (wide * max(2 * model.row_recomputed, model.codec)))))


@cache
def table() -> dict[str, list[Footprint]]:
    """By published model, its footprints at a small and at its own size."""
    return {name: [Footprint(**entry) for entry in entries] for name, entries in json.loads(TABLE.read_text(encoding="utf-8")).items()}


def known(family: str, parameters: int, side: int) -> Footprint:
    """The footprint of a model that is as large as it says, after the table's nearest: of its family, else of its size."""
    everything = list(table().values())
    same_family = [entries for entries in everything if entries[0].family == family] or everything
    small, own = min(same_family, key=lambda entries: abs(entries[0].parameters / parameters - 1))
    scale = parameters / own.parameters
    # Tokens go with the area; what does not grow with them is the text's part.
    share = (side**2 - small.side**2) / (own.side**2 - small.side**2)

    def at(field: str, least: float = 0.0) -> int:
        low, high = getattr(small, field), getattr(own, field)
        return int(scale * max(low + share * (high - low), low * min(1.0, side**2 / small.side**2)))

    fixed = {field: int(scale * getattr(own, field)) for field in ("linear", "in_blocks", "largest_block", "largest_linear", "text", "adapter")}
    grown: dict[str, Any] = {field: at(field) for field in ("row", "row_recomputed", "codec")}
    return Footprint(family, parameters, side=side, **fixed, **grown)


def settle(
    asked: Mapping[str, Any], family: str, parameters: int, device: torch.device, side: int, weights: str = "bf16", processes: int = 1,
    memory: float | None = None,
) -> dict[str, Any]:
    """`batch_size`, `gradient_accumulation` and `gradient_checkpointing` of a run; what is in `asked` (and not None) stays as it is.

    `parameters` are the denoiser's, `side` the pictures' in pixels, `weights` one of WEIGHTS. `memory` is what a run may take of the
    device, in bytes; without it the device is asked. Where nothing fits, the way that takes the least.
    """  # fmt: skip
    asked = {name: value for name, value in asked.items() if value is not None}
    batch = asked.get("batch_size") or max(processes, batch_for(parameters) // processes * processes)
    share = max(1, batch // processes)  # of a step, in each process
    model = known(family, parameters, side)

    def allowed(way: Fit) -> bool:
        found = {"gradient_accumulation": share // way.rows, "gradient_checkpointing": way.recomputed}
        return all(asked.get(name, value) == value for name, value in found.items())

    possible = [way for way in ways(model, share, weights) if allowed(way)]
    room = free_memory(device) if memory is None else memory
    # What is asked for may be no way at all, as a batch that does not divide: said where the settings are checked.
    way = next((way for way in possible if way.bytes <= room), min(possible, key=lambda way: way.bytes, default=None))
    chosen = {"batch_size": batch, "gradient_accumulation": 1, "gradient_checkpointing": False}
    if way is not None:
        chosen |= {"gradient_accumulation": share // way.rows, "gradient_checkpointing": way.recomputed}
    return {**chosen, **{name: value for name, value in asked.items() if name in chosen}}
