"""Small random models of the families that the host can sample, loaded by the host's own loader.

A model is built from the host's class on the meta device, so its keys are right by construction, and filled with random
numbers. Call these only where the fixture `comfy` is in use: the host's modules are imported inside the functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

PREFIX = "model.diffusion_model."


@dataclass(frozen=True)
class Tiny:
    """How one family is built and what it is fed with."""

    build: Callable[[], torch.nn.Module]  # on the meta device
    latent: tuple[int, ...]  # of one row
    condition: Callable[[torch.Generator], tuple[Tensor, dict[str, Any]]]


def _sd3() -> torch.nn.Module:
    from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper

    context = {"target": "torch.nn.Linear", "params": {"in_features": 64, "out_features": 128}}
    return OpenAISignatureMMDITWrapper(
        input_size=None, depth=2, in_channels=16, patch_size=2, adm_in_channels=32, num_patches=256, pos_embed_max_size=16,
        context_embedder_config=context, **_meta(),
    )  # fmt: skip


def _sd15() -> torch.nn.Module:
    return _unet(
        num_res_blocks=[1, 1], channel_mult=[1, 1], transformer_depth=[1, 1], transformer_depth_output=[1, 1, 1, 1],
        transformer_depth_middle=1, context_dim=768, num_heads=8, num_head_channels=-1,
    )  # fmt: skip


def _sdxl() -> torch.nn.Module:
    return _unet(  # these depths are how the host knows SDXL; the way up is free
        num_res_blocks=[2, 2, 2], channel_mult=[1, 1, 1], transformer_depth=[0, 0, 2, 2, 10, 10], transformer_depth_output=[0, 0, 0, 0, 0, 0, 1, 0, 0],
        transformer_depth_middle=1, context_dim=2048, num_heads=-1, num_head_channels=64, use_linear_in_transformer=True,
        adm_in_channels=2816, num_classes="sequential",
    )  # fmt: skip


def _unet(**shape: Any) -> torch.nn.Module:
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    return UNetModel(image_size=32, in_channels=4, out_channels=4, model_channels=320, use_spatial_transformer=True, legacy=False, **shape, **_meta())


def _wan() -> torch.nn.Module:
    from comfy.ldm.wan.model import WanModel

    return WanModel(dim=128, ffn_dim=256, num_heads=1, num_layers=2, **_meta())


def _hydit() -> torch.nn.Module:
    from comfy.ldm.hydit.models import HunYuanDiT

    return HunYuanDiT(hidden_size=256, depth=4, **_meta())


def _meta() -> dict[str, Any]:
    import comfy.ops

    return {"device": torch.device("meta"), "dtype": torch.float32, "operations": comfy.ops.disable_weight_init}


def _words(length: int, width: int, pooled: int | None = None) -> Callable[[torch.Generator], tuple[Tensor, dict[str, Any]]]:
    def make(generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        context = torch.randn(1, length, width, generator=generator)
        return context, {"pooled_output": None if pooled is None else torch.randn(1, pooled, generator=generator)}

    return make


def _hydit_words(generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
    context, more = _words(77, 1024)(generator)
    second = torch.randn(1, 256, 2048, generator=generator)
    return context, {**more, "attention_mask": torch.ones(1, 77), "conditioning_mt5xl": second, "attention_mask_mt5xl": torch.ones(1, 256)}


TINY = {
    "sd3": Tiny(_sd3, (16, 8, 8), _words(8, 64, 32)),
    "sd15": Tiny(_sd15, (4, 8, 8), _words(77, 768)),
    "sdxl": Tiny(_sdxl, (4, 8, 8), _words(77, 2048, 1280)),
    "wan": Tiny(_wan, (16, 1, 8, 8), _words(16, 4096)),
    "hydit": Tiny(_hydit, (4, 8, 8), _hydit_words),
}
FAMILIES = tuple(TINY)


def state_dict(family: str, seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the names of a checkpoint file. Vectors are 1 where they scale and 0 where they are added."""
    numbers = torch.randn(2**21, generator=torch.Generator().manual_seed(seed))  # used again and again: a billion fresh ones take seconds
    weights = {}
    used = 0
    for key, value in TINY[family].build().state_dict().items():
        if value.ndim == 1:
            weights[key] = torch.zeros(value.shape) if key.endswith("bias") else torch.ones(value.shape)
        else:
            start = used % 1009  # no two weights alike
            wanted = numbers[start:].repeat(math.ceil(value.numel() / (len(numbers) - start)))[: value.numel()]
            weights[key] = wanted.view(value.shape) / math.sqrt(value[0].numel())
            used += value.numel() + 1
    return {PREFIX + key: value for key, value in weights.items()}


def save(family: str, path: Path, seed: int = 0) -> Path:
    """A file for the host's "Load Diffusion Model"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state_dict(family, seed), str(path))
    return path


def load(family: str, seed: int = 0):
    """The ModelPatcher that the host makes of such a file."""
    import comfy.sd

    with torch.inference_mode():  # as inside a node
        patcher = comfy.sd.load_diffusion_model_state_dict(state_dict(family, seed))
    assert patcher is not None, f"the host does not recognise the tiny {family} model"
    return patcher


def conditioning(family: str, seed: int = 1) -> list[list[Any]]:
    """A CONDITIONING value."""
    context, more = TINY[family].condition(torch.Generator().manual_seed(seed))
    return [[context, more]]


def latent(family: str, rows: int = 1, seed: int | None = None) -> dict[str, Tensor]:
    """A LATENT value: empty, or random from a seed."""
    shape = (rows, *TINY[family].latent)
    return {"samples": torch.zeros(shape) if seed is None else torch.randn(shape, generator=torch.Generator().manual_seed(seed))}


def sample(patcher, family: str, seed: int = 3, steps: int = 2, guidance: float = 3.0, rows: int = 1) -> Tensor:
    """Latents from the host's own KSampler."""
    import nodes

    with torch.inference_mode():
        positive, negative = conditioning(family, 1), conditioning(family, 2)
        return nodes.common_ksampler(patcher, seed, steps, guidance, "euler", "normal", positive, negative, latent(family, rows))[0]["samples"]


def flux_settings(**settings):
    """For the host's Flux; newer hosts must be told which parts of the text's positions count."""
    from dataclasses import fields

    from comfy.ldm.flux.model import FluxParams

    newer = {"txt_ids_dims": []} if "txt_ids_dims" in {field.name for field in fields(FluxParams)} else {}
    return {"image_model": "flux", "patch_size": 2, "theta": 10000, "qkv_bias": True, "dtype": torch.float32, **newer, **settings}
