"""Where a LoRA's modules belong that carry the names of a model's original code, asked of diffusers' converter for whole checkpoints.

It is run on stand-ins, as in `diffusers_names`: (d_out, 2), the number of the module beside the number of each row.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from .base import Base
from .lora_file import LoraModule
from .names import Part
from .updates import Shapes, widths

_PREFIX = re.compile(r"lora_unet_|lora_transformer_|lycoris_|(base_model\.model\.)?((model\.)?diffusion_model\.|transformer\.|unet\.)?")
#: Names with an underscore of their own; every other one in a trainer's flat name stands for a dot.
_WORDS = (
    "joint_blocks", "double_blocks", "single_blocks", "x_block", "context_block", "img_attn", "txt_attn", "img_mlp", "txt_mlp", "self_attn", "cross_attn", "k_img",
    "v_img", "q_linear", "kv_linear", "feed_forward", "noise_refiner", "context_refiner", "final_layer", "adaLN_modulation", "context_embedder", "cap_embedder",
    "x_embedder", "y_embedder", "t_embedder", "img_in", "txt_in", "time_in", "vector_in", "guidance_in", "in_layer", "out_layer", "time_embedding",
    "text_embedding", "time_projection", "single_stream_modulation", "double_stream_modulation_img", "double_stream_modulation_txt",
)  # fmt: skip
#: A part of a fused Linear as a module of its own, by its number: the names of the Open Model Initiative (OMI), which OneTrainer wrote.
PIECE = re.compile(r"(.+\.(?:qkv|linear1))\.([0-3])")
_WORD = re.compile(rf"({'|'.join(sorted(_WORDS, key=len, reverse=True))})|_")


def original_name(module: str) -> str:
    """With dots and without what a trainer puts before it: "lora_unet_joint_blocks_0_x_block_mlp_fc1" → "joint_blocks.0.x_block.mlp.fc1"."""
    name = _PREFIX.sub("", module, count=1)
    # OMI calls Flux's img_in a patch embedding.
    return re.sub(r"^img_in\.proj$", "img_in", name) if "." in name else _WORD.sub(lambda found: found[1] or ".", name)


def named_by_checkpoint(file: Shapes, modules: list[LoraModule], base: Base) -> list[Part]:
    """The parts that a checkpoint's converter finds for `modules`. Modules that it doesn't know are in no part, and so are all where it fails."""
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    convert = SINGLE_FILE_LOADABLE_CLASSES.get(type(base.denoiser).__name__, {}).get("checkpoint_mapping_fn")
    if convert is None:
        return []
    config: Any = base.denoiser.config
    # Some count the blocks by the names that are there, and treat the last one differently.
    checkpoint = _Checkpoint({f"joint_blocks.{number}.counted": _nothing() for number in range(config.get("num_layers") or 0)})
    heights = [widths(file, module)[1] for module in modules]
    for number, (module, d_out) in enumerate(zip(modules, heights), 1):
        checkpoint[f"{original_name(module.name)}.weight"] = torch.stack([torch.full((d_out,), float(number)), torch.arange(float(d_out))], dim=1)
    try:
        converted = convert(checkpoint, config=config)
    except (ValueError, KeyError, IndexError, AttributeError, RuntimeError, TypeError):
        return []
    parts = []
    for key, rows in converted.items():
        number = int(rows[0, 0])
        if key.endswith(".weight") and number and bool((rows[:, 0] == number).all()):
            order = tuple(rows[:, 1].long().tolist())
            parts.append(Part(modules[number - 1].name, key.removesuffix(".weight"), None if order == tuple(range(heights[number - 1])) else order))
    return parts


class _Checkpoint(dict[str, Tensor]):
    """Has whatever a converter asks for; what no module stands for has no number."""

    def __missing__(self, key: str) -> Tensor:
        return _nothing()

    def pop(self, key: str, *default: Any) -> Any:
        return super().pop(key, None) if key in self else self[key]


def _nothing() -> Tensor:
    return torch.zeros(6, 2)  # can be halved and be cut into q, k, v
