"""LoRA files as the trainers write them: random weights for chosen modules of a model, under each trainer's names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

#: Linears that LoRAs adapt, by the end of their path.
TARGETS = (
    "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "net.0.proj", "net.2", "proj_mlp", "proj_out",
    "feed_forward.w1", "feed_forward.w2", "feed_forward.w3",
)  # fmt: skip


def linears(model: nn.Module, ends: Iterable[str] = TARGETS) -> dict[str, nn.Linear]:
    """The Linears inside blocks whose path ends so."""
    ends = tuple("." + end for end in ends)
    return {path: module for path, module in model.named_modules() if isinstance(module, nn.Linear) and path.endswith(ends) and any(c.isdigit() for c in path)}


def random_lora(modules: dict[str, nn.Module], rank: int = 3, seed: int = 0, size: float = 0.3) -> dict[str, tuple[Tensor, Tensor]]:
    """(down (r, d_in …), up (d_out, r …)) by path; a convolution's as LoCon has them."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return size * torch.randn(shape, generator=generator)

    made = {}
    for path, module in modules.items():
        weight = module.weight
        more = (1,) * (weight.ndim - 2)
        made[path] = draw(rank, *weight.shape[1:]), draw(weight.shape[0], rank, *more)
    return made


def changes(lora: dict[str, tuple[Tensor, Tensor]], scale: float = 1.0) -> dict[str, Tensor]:
    """ΔW (d_out, d_in) by path, in float64."""
    return {path: scale * up.flatten(1).double() @ down.flatten(1).double() for path, (down, up) in lora.items()}


# -- spellings: (tensors, fields of text) ---------------------------------------------------------------------


def peft_style(lora: dict[str, tuple[Tensor, Tensor]], component: str) -> dict[str, Tensor]:
    """diffusers' `save_lora_weights`, and ai-toolkit's for Flux: "transformer.….lora_A.weight"."""
    return {f"{component}.{path}.lora_{side}.weight": tensor for path, pair in lora.items() for side, tensor in zip("AB", pair)}


def kohya_style(
    lora: dict[str, tuple[Tensor, Tensor]], prefix: str = "lora_unet_", alpha: float | None = 1.5, rename: Callable[[str], str] = lambda path: path, dotted: bool = False
) -> dict[str, Tensor]:
    """"lora_unet_….lora_down.weight" with an alpha."""
    tensors = {}
    for path, (down, up) in lora.items():
        name = prefix + (rename(path) if dotted else rename(path).replace(".", "_"))
        tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = down, up
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return tensors


def write(tensors: dict[str, Tensor], path: Path, **text: str) -> Path:
    save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, str(path), metadata=text or None)
    return path


def old_diffusers_style(lora: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """diffusers before peft: "unet.….attn1.processor.to_q_lora.down.weight"."""
    tensors = {}
    for path, (down, up) in lora.items():
        attention, _, last = path.removesuffix(".0").rpartition(".")
        tensors[f"unet.{attention}.processor.{last}_lora.down.weight"], tensors[f"unet.{attention}.processor.{last}_lora.up.weight"] = down, up
    return tensors


def convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    return {path: module for path, module in model.named_modules() if isinstance(module, nn.Conv2d) and "resnets" in path}


def sgm_name(path: str, layers_per_block: int) -> str:
    """A path of diffusers' UNet as SDXL's own code has it."""
    per_block = layers_per_block + 1
    for pattern, name in (
        (r"^down_blocks\.(\d+)\.(resnets|attentions)\.(\d+)", lambda m: f"input_blocks.{1 + int(m[1]) * per_block + int(m[3])}.{int(m[2] == 'attentions')}"),
        (r"^up_blocks\.(\d+)\.(resnets|attentions)\.(\d+)", lambda m: f"output_blocks.{int(m[1]) * per_block + int(m[3])}.{int(m[2] == 'attentions')}"),
        (r"^mid_block\.resnets\.(\d+)", lambda m: f"middle_block.{2 * int(m[1])}"),
        (r"^mid_block\.attentions\.0", lambda m: "middle_block.1"),
        (r"\.conv1$", lambda m: ".in_layers.2"), (r"\.conv2$", lambda m: ".out_layers.3"), (r"\.conv_shortcut$", lambda m: ".skip_connection"),
    ):  # fmt: skip
        path = re.sub(pattern, name, path)
    return path
