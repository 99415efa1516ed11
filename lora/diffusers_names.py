"""Where a LoRA's modules belong, asked of diffusers' own converter for the base's pipeline.

The converter is run on stand-ins of rank 1 that carry numbers instead of weights: the down side holds the number of its module, the up
side counts its rows. Whatever the converter does – rename, split a fused q, k, v, reorder rows – can then be read off, and it costs
nothing. The real weights never go through it, so neither do their alphas: several converters forget or round them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..sparsedict_core.errors import FileFormatError
from .lora_file import LoraFile, LoraModule
from .names import Part
from .updates import widths


def named_by_diffusers(file: LoraFile, modules: list[LoraModule], loader: Any, denoiser: Any, component: str) -> list[Part]:
    """The parts that `loader` (a pipeline class with `lora_state_dict`) finds for `modules`. Modules that it doesn't know are in no part.

    Raises FileFormatError where the converter refuses the names altogether.
    """
    if not hasattr(loader, "lora_state_dict"):
        return []
    stand_ins = _stand_ins(file, modules)
    options = {"unet_config": denoiser.config} if component == "unet" else {}
    try:
        with _quiet():
            answer = loader.lora_state_dict(stand_ins, **options)
            converted = _as_peft(answer[0] if isinstance(answer, tuple) else answer)
    except (ValueError, KeyError, IndexError, AttributeError, AssertionError, RuntimeError, TypeError) as error:
        raise FileFormatError(
            f"{file.path}: diffusers cannot read the names of this LoRA for a {loader.__name__} "
            f"({type(error).__name__}: {' '.join(str(error).split())[:120]}); give the base that it was made for, or convert it in ComfyUI."
        ) from error
    parts = []
    for key, down in converted.items():
        if not key.endswith(".lora_A.weight") or not isinstance(down, Tensor):
            continue
        up = converted.get(key.replace(".lora_A.weight", ".lora_B.weight"))
        number = down.flatten()[0]
        if up is None or not bool((down == number).all()) or not 1 <= int(number) <= len(modules):
            continue
        rows = tuple(int(row) - 1 for row in up.flatten())
        module = modules[int(number) - 1]
        whole = rows == tuple(range(widths(file, module)[1]))
        path = key.removesuffix(".lora_A.weight").removeprefix(f"{component}.")
        parts.append(Part(module.name, path, None if whole else rows))
    return parts


def _stand_ins(file: LoraFile, modules: list[LoraModule]) -> dict[str, Tensor]:
    """Under the file's own keys; modules that are no LoRA get kohya's, which their trainer shares."""
    made: dict[str, Tensor] = {}
    for number, module in enumerate(modules, 1):
        d_in, d_out = widths(file, module)
        plain = "down" in module.keys
        # As many dimensions as the file has: a converter may look.
        more = (1,) * (len(file.shape(module.keys["up"])) - 2) if plain else ()
        made[module.keys.get("down", f"{module.name}.lora_down.weight")] = torch.full((1, d_in, *more), float(number))
        made[module.keys.get("up", f"{module.name}.lora_up.weight")] = torch.arange(1.0, d_out + 1).reshape(-1, 1, *more)
        if module.alpha is not None or not plain:
            made[f"{module.name}.alpha"] = torch.tensor(1.0)
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
