"""Files that people take for LoRAs of the demo base, each with the words that must be in what they are told; None: it is read."""

from __future__ import annotations

from pathlib import Path

import torch
from lora.lora_files import write
from safetensors.torch import load_file
from torch import Tensor

import sparsedict

GOOD = Path(sparsedict.__file__).parent / "demo" / "loras" / "zorp.safetensors"
FIRST = "lora_transformer_transformer_blocks_0_attn_to_q"
TYPES = (torch.float16, torch.bfloat16, torch.float32)


def pair(name: str, d_in: int, d_out: int) -> dict[str, Tensor]:
    return {f"{name}.lora_down.weight": torch.ones(2, d_in), f"{name}.lora_up.weight": torch.ones(d_out, 2)}


def changed(**tensors: Tensor) -> dict[str, Tensor]:
    """The good one with these in its first module."""
    return load_file(str(GOOD)) | {f"{FIRST}.{part.replace('__', '.')}": tensor for part, tensor in tensors.items()}


def numbers_as(*types: torch.dtype) -> dict[str, Tensor]:
    return {key: tensor if key.endswith("alpha") else tensor.to(types[number % len(types)]) for number, (key, tensor) in enumerate(load_file(str(GOOD)).items())}


SD15 = pair("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k", 768, 320)
CASES = {
    "a full checkpoint": ({"model.diffusion_model.joint_blocks.0.x.weight": torch.ones(2, 2)}, {}, ("checkpoint",)),
    "a textual inversion": ({"emb_params": torch.ones(3, 768)}, {}, ("textual inversion",)),
    "another base, as it says": (SD15, {"ss_base_model_version": "sd_v1"}, ("sd_v1", "sd3")),
    "another base, by its names": (pair("lora_unet_double_blocks_0_img_attn_qkv", 3072, 9216), {}, ("flux", "sd3")),
    "rank zero": (changed(lora_down__weight=torch.zeros(0, 192), lora_up__weight=torch.zeros(192, 0)), {}, ("rank 0", FIRST)),
    "alpha missing": ({key: tensor for key, tensor in load_file(str(GOOD)).items() if not key.endswith("alpha")}, {}, None),
    "alpha zero": (changed(alpha=torch.tensor(0.0)), {}, ("is 0", FIRST)),
    "alpha not finite": (changed(alpha=torch.tensor(float("nan"))), {}, ("finite", FIRST)),
    "mixed types": (numbers_as(*TYPES), {}, None),
    "fp8": (numbers_as(torch.float8_e4m3fn), {}, None),
    "nothing matches": (pair("lora_unet_some_where", 8, 8), {}, ("none of its 1 modules", "lora_unet_some_where")),
    "a part matches": (load_file(str(GOOD)) | pair("lora_unet_some_where", 8, 8), {}, ("45 of its 46 modules", "lora_unet_some_where")),
}


def make(name: str, folder: Path) -> Path:
    if name == "broken":
        path = folder / "broken.safetensors"
        path.write_bytes(GOOD.read_bytes()[:-500])
        return path
    tensors, text, _ = CASES[name]
    return write(tensors, folder / f"{name.replace(' ', '_').replace(',', '')}.safetensors", **text)


def words_of(name: str) -> tuple[str, ...] | None:
    return ("truncated",) if name == "broken" else CASES[name][2]


NAMES = [*CASES, "broken"]
