"""The change of weights that a LoRA module stands for, as two factors: exactly for LoRA and LoCon, by SVD for the other kinds.

What the modules compute is public knowledge of their trainers (LyCORIS, peft); the sums are written here beside their names.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..sparsedict_core.errors import FileFormatError
from ..sparsedict_core.low_rank import truncated_factors
from .lora_file import LoraFile, LoraModule


class Factors(NamedTuple):
    """ΔW ≈ up·down in float64: down (r, d_in) with a convolution's patch flattened, up (d_out, r); `lost` is ‖error‖ / ‖ΔW‖."""

    down: Tensor
    up: Tensor
    lost: float = 0.0


class Shapes(Protocol):
    """A LoRA file, as far as its shapes go."""

    def shape(self, key: str) -> tuple[int, ...]: ...


def widths(file: Shapes, module: LoraModule) -> tuple[int, int]:
    """(d_in, d_out) of the change, told from shapes alone; d_in of a convolution is channels · height · width."""

    def shape(part: str) -> tuple[int, ...]:
        return file.shape(module.keys[part])

    def product(a: str, b: str, core: str) -> tuple[int, int]:
        if core in module.keys:
            return shape(b)[1] * math.prod(shape(core)[2:]), shape(a)[1]
        return math.prod(shape(b)[1:]), shape(a)[0]

    if "down" in module.keys:
        kernel = math.prod(shape("mid")[2:]) if "mid" in module.keys else 1
        return math.prod(shape("down")[1:]) * kernel, shape("up")[0]
    if "diff" in module.keys:
        return math.prod(shape("diff")[1:]), shape("diff")[0]
    if "hada_w1_a" in module.keys:
        return product("hada_w1_a", "hada_w1_b", "hada_t1")
    d_in = d_out = 1
    for side, core in (("lokr_w1", ""), ("lokr_w2", "lokr_t2")):
        whole = side in module.keys
        ins, outs = (math.prod(shape(side)[1:]), shape(side)[0]) if whole else product(f"{side}_a", f"{side}_b", core)
        d_in, d_out = d_in * ins, d_out * outs
    return d_in, d_out


def factors(file: LoraFile, module: LoraModule, rank: int, weight: Tensor | None = None) -> Factors:
    """The module's update; for the kinds that are no two factors, the nearest with at most `rank` directions.

    `weight` (d_out, …) is the base's, which DoRA needs. Raises FileFormatError for what does not fit together.
    """
    try:
        if module.kind == "lora":
            return _lora(file, module)
        update = _update(file, module).flatten(1)
        if "dora" in module.keys:
            update = _dora(file, module, update, weight)
        if (update.shape[1], update.shape[0]) != widths(file, module):
            raise _unfit(file, module)
    except (RuntimeError, IndexError) as error:  # torch's words for shapes that do not fit
        raise _unfit(file, module) from error
    return Factors(*truncated_factors(update, rank))


def _unfit(file: LoraFile, module: LoraModule) -> FileFormatError:
    shapes = ", ".join(f"{part} {file.shape(key)}" for part, key in module.keys.items())
    return FileFormatError(f"{file.path}: the tensors of {module.name} do not fit together ({shapes}); the LoRA is damaged.")


def _lora(file: LoraFile, module: LoraModule) -> Factors:
    down, up, mid = (file.numbers(module, part) for part in ("down", "up", "mid"))
    assert down is not None and up is not None
    if up[0, 0].numel() != 1:
        raise FileFormatError(f"{file.path}: {module.keys['up']} has shape {tuple(up.shape)}; an up side that is more than 1 × 1 cannot become atoms.")
    if mid is not None:  # LoCon's three convolutions: 1 × 1, the kernel, 1 × 1
        down = torch.einsum("abhw,bi->aihw", mid, down.flatten(1))
    rank = down.shape[0]
    return Factors(down.flatten(1), up.flatten(1) * file.scale(module, rank))


def _update(file: LoraFile, module: LoraModule) -> Tensor:
    """ΔW (d_out, …) of every other kind."""
    part = {name: file.numbers(module, name) for name in module.keys if name != "dora"}
    if module.kind.startswith("lora"):
        plain = _lora(file, module)
        return plain.up @ plain.down
    if module.kind.startswith("full"):
        return _there(part["diff"])
    if module.kind.startswith("loha"):
        rank = _there(part["hada_w1_b"]).shape[0]
        one, two = (_product(part[f"hada_w{i}_a"], part[f"hada_w{i}_b"], part.get(f"hada_t{i}")) for i in (1, 2))
        if one.shape != two.shape:  # torch would stretch one of them
            raise _unfit(file, module)
        return one * two * file.scale(module, rank)
    rank = 0
    sides = []
    for side, tucker in (("lokr_w1", None), ("lokr_w2", part.get("lokr_t2"))):
        whole = part.get(side)
        if whole is None:
            whole = _product(part[f"{side}_a"], part[f"{side}_b"], tucker)
            rank = _there(part[f"{side}_b"]).shape[0]
        sides.append(whole)
    one, two = sides
    update = torch.kron(one.reshape(*one.shape, *(1,) * (two.ndim - 2)), two)
    # Two whole sides are taken as they are: their alpha says nothing.
    return update * file.scale(module, rank) if rank else update


def _product(a: Tensor | None, b: Tensor | None, tucker: Tensor | None) -> Tensor:
    """a·b, or for a convolution's core (r, r, h, w): aᵀ and b on its first two sides."""
    a, b = _there(a), _there(b)
    if tucker is not None:
        return torch.einsum("ijhw,jr,ip->prhw", tucker, b, a).contiguous()  # as kron needs it
    return (a @ b.flatten(1)).reshape(a.shape[0], *b.shape[1:])


def _there(tensor: Tensor | None) -> Tensor:
    assert tensor is not None  # LoraFile has looked
    return tensor


def _dora(file: LoraFile, module: LoraModule, update: Tensor, weight: Tensor | None) -> Tensor:
    """m · (W + ΔW) / ‖W + ΔW‖ − W: the magnitude m is of rows, (d_out) and peft's (1, d_out, 1, 1), or as LyCORIS has it of columns (1, d_in, …)."""
    magnitude = file.numbers(module, "dora")
    assert magnitude is not None
    if weight is None:
        raise FileFormatError(f"{file.path}: {module.name} is a DoRA, whose change depends on the base's weights; give the base's diffusers folder with its weights, or convert it in ComfyUI.")
    base = weight.double().cpu()
    direction = base.flatten(1) + update.reshape(base.shape).flatten(1)
    of_columns = magnitude.ndim > 1 and magnitude.shape[0] == 1 and base.shape[0] != 1 and not module.keys["dora"].removesuffix(".weight").endswith("lora_magnitude_vector")
    if magnitude.numel() != base.shape[1 if of_columns else 0]:
        raise _unfit(file, module)
    if of_columns:
        columns = direction.reshape(base.shape[0], base.shape[1], -1)
        norm = columns.square().sum((0, 2), keepdim=True).sqrt()
        return (columns / norm * magnitude.reshape(1, -1, 1)).flatten(1) - base.flatten(1)
    return direction / direction.norm(dim=1, keepdim=True) * magnitude.reshape(-1, 1) - base.flatten(1)
