"""Where a LoRA's modules belong, asked of diffusers' own converters for the base.

The pipeline's converter of LoRAs is run on stand-ins of rank 1 that carry numbers instead of weights: the down side holds the number of its module, the up
side counts its rows. Whatever the converter does – rename, split a fused q, k, v, reorder rows – can then be read off, and it costs
nothing. The real weights never go through it, so neither do their alphas: several converters forget or round them.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Container, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from .base import Base
from .lora_file import LoraFile, LoraModule
from .names import Part
from .original_names import PIECE, named_by_checkpoint, original_name
from .updates import Shapes, widths


def named_by_diffusers(file: LoraFile, modules: list[LoraModule], paths: Container[str], base: Base) -> list[Part]:
    """The parts at the base's `paths` that diffusers tells for `modules`: the pipeline's LoRA converter from the file's own names, then from
    kohya's for the same modules, then the checkpoint's converter; where the file has parts of a fused Linear, for the whole of it. Modules that none of them knows are in no part."""
    found: dict[str, list[Part]] = {}
    for ask in (_by_own_names, _by_pieces, _by_kohya_names, named_by_checkpoint):
        left = [module for module in modules if module.name not in found]
        asked: dict[str, list[Part]] = {}
        for part in ask(file, left, base) if left else []:
            asked.setdefault(part.module, []).append(part)
        found |= {name: parts for name, parts in asked.items() if all(part.path in paths for part in parts)}
    return [part for parts in found.values() for part in parts]


def _by_own_names(file: Shapes, modules: list[LoraModule], base: Base) -> list[Part]:
    return _converted(file, modules, _stand_ins(file, modules), base)


def _by_kohya_names(file: Shapes, modules: list[LoraModule], base: Base) -> list[Part]:
    """Most converters know the original's names in this spelling, whichever others they know."""
    renamed = {module.name: f"lora_unet_{original_name(module.name).replace('.', '_')}" for module in modules}
    return _converted(file, modules, _stand_ins(file, modules, renamed), base)


class _Wholes:
    """Shapes of fused Linears of which a file has parts, of rank 1."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}

    def shape(self, key: str) -> tuple[int, ...]:
        return self.shapes[key]


def _by_pieces(file: Shapes, modules: list[LoraModule], base: Base) -> list[Part]:
    """The fused Linears are asked for, whole, and their rows are given to the parts of them that the file has."""
    pieces: dict[str, dict[int, LoraModule]] = {}
    for module in modules:
        found = PIECE.fullmatch(original_name(module.name))
        if found is not None:
            pieces.setdefault(found[1], {})[int(found[2])] = module
    wholes = _Wholes()
    fused: list[LoraModule] = []
    starts: dict[str, list[int]] = {}
    for name, inside in pieces.items():
        number, first = next(iter(inside.items()))
        d_in, d_out = widths(file, first)
        # The file need not have every part: q, k and v are alike, and the MLP beside them is as wide as diffusers' converters have it.
        rows = d_out // 4 if number == 3 else d_out
        starts[name] = [0, rows, 2 * rows, 3 * rows, *([7 * rows] if name.endswith("linear1") else [])]
        fused.append(LoraModule(name, {"down": f"{name}.down", "up": f"{name}.up"}))
        wholes.shapes |= {f"{name}.down": (1, d_in), f"{name}.up": (starts[name][-1], 1)}
    asked = _by_kohya_names(wholes, fused, base) if fused else []
    known = {part.module for part in asked if part.rows is not None}
    asked += named_by_checkpoint(wholes, [whole for whole in fused if whole.name not in known], base) if len(known) < len(fused) else []
    parts = []
    for part in asked:
        for number, (start, stop) in enumerate(itertools.pairwise(starts[part.module])):
            module = pieces[part.module].get(number)
            if module is not None and part.rows is not None and set(part.rows) == set(range(start, stop)):
                order = tuple(row - start for row in part.rows)
                parts.append(Part(module.name, part.path, None if order == tuple(range(stop - start)) else order))
    return parts


def _converted(file: Shapes, modules: list[LoraModule], stand_ins: dict[str, Tensor], base: Base) -> list[Part]:
    """None where the converter fails: for one name that it does not expect it refuses all."""
    if not hasattr(base.loader, "lora_state_dict"):
        return []
    options = {"unet_config": base.denoiser.config} if base.component == "unet" else {}
    try:
        with _quiet():
            answer = base.loader.lora_state_dict(stand_ins, **options)
            converted = _as_peft(answer[0] if isinstance(answer, tuple) else answer)
    except (ValueError, KeyError, IndexError, AttributeError, AssertionError, RuntimeError, TypeError):
        return []
    parts = []
    for key, down in converted.items():
        if not key.endswith(".lora_A.weight") or not isinstance(down, Tensor):
            continue
        up = converted.get(key.replace(".lora_A.weight", ".lora_B.weight"))
        number = down.flatten()[0]
        if up is None or not bool((down == number).all()) or not 1 <= int(number) <= len(modules):
            continue
        rows = tuple((up.flatten().long() - 1).tolist())
        module = modules[int(number) - 1]
        whole = rows == tuple(range(widths(file, module)[1]))
        path = key.removesuffix(".lora_A.weight").removeprefix(f"{base.component}.")
        parts.append(Part(module.name, path, None if whole else rows))
    return parts


def _stand_ins(file: Shapes, modules: list[LoraModule], kohya: Mapping[str, str] | None = None) -> dict[str, Tensor]:
    """Under the file's own keys, or under those of kohya's names; modules that are no LoRA have kohya's in either case, which their trainer shares."""
    made: dict[str, Tensor] = {}
    for number, module in enumerate(modules, 1):
        d_in, d_out = widths(file, module)
        plain = "down" in module.keys
        # As many dimensions as the file has: a converter may look.
        more = (1,) * (len(file.shape(module.keys["up"])) - 2) if plain else ()
        name = kohya[module.name] if kohya else module.name
        keys = module.keys if plain and not kohya else {"down": f"{name}.lora_down.weight", "up": f"{name}.lora_up.weight"}
        made[keys["down"]] = torch.full((1, d_in, *more), float(number))
        made[keys["up"]] = torch.arange(1.0, d_out + 1).reshape(-1, 1, *more)
        if module.alpha is not None or kohya or not plain:
            made[f"{name}.alpha"] = torch.tensor(1.0)
    return made


def _as_peft(state: dict[str, Any]) -> dict[str, Any]:
    """As diffusers does it before loading."""
    from diffusers.utils import convert_unet_state_dict_to_peft

    # The keys that it replaces outright stand at the beginning of a name, after the component.
    return state if any("lora_A" in key for key in state) else convert_unet_state_dict_to_peft(state)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Converters tell their developers about names that are said here in a sentence."""
    logger = logging.getLogger("diffusers.loaders")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
