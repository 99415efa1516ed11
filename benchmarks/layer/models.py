"""Models of real widths with random weights: few blocks on the CPU, all of them and 1024² pixels on a GPU. No weights are needed to time a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

NAMES = ("sd3-medium", "flux", "sdxl")
SDXL_CHANNELS = (320, 640, 1280)


@dataclass
class WideModel:
    """A frozen denoiser and what to call it with; also all that `evaluation/peers.py` asks of a backend."""

    name: str
    denoiser: nn.Module
    component: str
    make_inputs: Callable[[int], dict[str, Any]]  # latent cells along a side → keyword arguments, batch 1
    side: int  # of the measured step
    small_side: int  # of a call that only warms up
    about: dict[str, Any]

    def inputs(self, small: bool = False) -> dict[str, Any]:
        """Arguments of one call, the same at every time."""
        torch.manual_seed(3)
        return self.make_inputs(self.small_side if small else self.side)

    def run(self, inputs: dict[str, Any]) -> Tensor:
        return self.denoiser(**inputs, return_dict=False)[0]


INITIALISED = (nn.Linear, nn.Embedding, nn.modules.conv._ConvNd)


@contextmanager
def no_initialisation() -> Iterator[None]:
    """Leaves new weights as they are within the block: drawing half a billion numbers takes longer than the timing.

    On the classes, not in torch.nn.init: a library that is imported within the block would keep what it finds there.
    """
    kept = [(kind, kind.reset_parameters) for kind in INITIALISED]
    try:
        for kind in INITIALISED:
            kind.reset_parameters = lambda self: None
        yield
    finally:
        for kind, function in kept:
            kind.reset_parameters = function


@torch.no_grad()
def fill(model: nn.Module) -> None:
    """Weights of the usual size, the same block of random numbers over and over."""
    block = torch.rand(1 << 20, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.Embedding)):
            bound = module.weight[0].numel() ** -0.5
            for tensor in (module.weight, getattr(module, "bias", None)):
                if tensor is not None:
                    flat, scaled = tensor.view(-1), (block * bound).to(tensor)
                    for first in range(0, len(flat), len(scaled)):
                        flat[first : first + len(scaled)] = scaled[: len(flat) - first]


@contextmanager
def made_on(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """New modules and tensors are made on `device` and in `dtype` within the block."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def denoiser_of(name: str, full: bool) -> tuple[nn.Module, str]:
    """(the module, its component), of all blocks or of few."""
    import diffusers

    if name == "sd3-medium":
        layers = 24 if full else 2
        return diffusers.SD3Transformer2DModel(
            sample_size=128, num_layers=layers, attention_head_dim=64, num_attention_heads=24, joint_attention_dim=4096,
            caption_projection_dim=1536, pooled_projection_dim=2048, pos_embed_max_size=192,
        ), "transformer"  # fmt: skip
    if name == "flux":
        double, single = (19, 38) if full else (1, 1)
        return diffusers.FluxTransformer2DModel(num_layers=double, num_single_layers=single, guidance_embeds=True), "transformer"
    if name == "sdxl":
        blocks = [1, 2, 10] if full else 1
        return diffusers.UNet2DConditionModel(
            sample_size=128, block_out_channels=SDXL_CHANNELS, layers_per_block=2 if full else 1, transformer_layers_per_block=blocks,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=[5, 10, 20], cross_attention_dim=2048, use_linear_projection=True, addition_embed_type="text_time",
            addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
        ), "unet"  # fmt: skip
    raise ValueError(f"there is no wide model {name}; the models are {', '.join(NAMES)}.")


def sd3_inputs(side: int, text: int) -> dict[str, Any]:
    return {"hidden_states": torch.randn(1, 16, side, side), "encoder_hidden_states": torch.randn(1, text, 4096),
            "pooled_projections": torch.randn(1, 2048), "timestep": torch.tensor([500.0])}  # fmt: skip


def flux_inputs(side: int, text: int) -> dict[str, Any]:
    tokens = (side // 2) ** 2
    places = torch.zeros(tokens, 3)
    places[:, 1], places[:, 2] = torch.arange(tokens) // (side // 2), torch.arange(tokens) % (side // 2)
    return {"hidden_states": torch.randn(1, tokens, 64), "encoder_hidden_states": torch.randn(1, text, 4096),
            "pooled_projections": torch.randn(1, 768), "timestep": torch.tensor([0.5]), "guidance": torch.tensor([3.5]),
            "img_ids": places, "txt_ids": torch.zeros(text, 3)}  # fmt: skip


def sdxl_inputs(side: int, text: int) -> dict[str, Any]:
    return {"sample": torch.randn(1, 4, side, side), "timestep": torch.tensor(500.0), "encoder_hidden_states": torch.randn(1, text, 2048),
            "added_cond_kwargs": {"text_embeds": torch.randn(1, 1280), "time_ids": torch.ones(1, 6)}}  # fmt: skip


INPUTS = {"sd3-medium": sd3_inputs, "flux": flux_inputs, "sdxl": sdxl_inputs}
# Latent cells along a side and text tokens: what one core does in about a second; on a GPU those of 1024² pixels.
SIZES = {"sd3-medium": (32, 154), "flux": (16, 64), "sdxl": (24, 77)}
FULL_SIZES = {"sd3-medium": (128, 333), "flux": (128, 512), "sdxl": (128, 77)}


def wide_model(name: str, device: torch.device, dtype: torch.dtype, full: bool, side: int | None = None) -> WideModel:
    """A model with random weights; `full`: with all blocks, and the tokens of 1024² pixels."""
    default_side, text = (FULL_SIZES if full else SIZES)[name]
    with made_on(device, dtype), no_initialisation():
        denoiser, component = denoiser_of(name, full)
    fill(denoiser)

    def make_inputs(cells: int) -> dict[str, Any]:
        with made_on(device, dtype):
            return INPUTS[name](cells, text)

    side = side or default_side
    about = {"blocks": "all" if full else "few", "latent_side": side, "text_tokens": text, "model_parameters": sum(p.numel() for p in denoiser.parameters())}
    return WideModel(name, denoiser.eval().requires_grad_(False), component, make_inputs, side, min(side, 8), about)


class Outline(nn.Module):
    """Stands for a Linear of given widths: says them, and returns zeros at once. What an adapter does there is then all that is timed."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.in_features, self.out_features = d_in, d_out

    def forward(self, x: Tensor) -> Tensor:
        """x (..., d_in) → (..., d_out)."""
        return x.new_zeros((*x.shape[:-1], self.out_features))
