"""Tiny random denoisers of the real diffusers classes, each with inputs for one forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

r = torch.randn


def unet(sdxl: bool = False, cross: int = 16) -> tuple[Any, dict]:
    from diffusers import UNet2DConditionModel

    extra: dict[str, Any] = {}
    inputs = {"sample": r(2, 4, 8, 8), "timestep": torch.tensor([3, 7]), "encoder_hidden_states": r(2, 5, cross)}
    if sdxl:
        extra = {
            "addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 6 * 4 + 8,
            "transformer_layers_per_block": (1, 2), "use_linear_projection": True,
        }  # fmt: skip
        inputs["added_cond_kwargs"] = {"text_embeds": r(2, 8), "time_ids": r(2, 6)}
    model = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=cross,
        down_block_types=("DownBlock2D" if sdxl else "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D" if sdxl else "CrossAttnUpBlock2D"), attention_head_dim=2, **extra,
    )  # fmt: skip
    return model, inputs


def sd3(dual: bool = False) -> tuple[Any, dict]:
    from diffusers import SD3Transformer2DModel

    model = SD3Transformer2DModel(
        sample_size=8, num_layers=3, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=12, caption_projection_dim=16,
        pooled_projection_dim=10, pos_embed_max_size=8, dual_attention_layers=(0, 1) if dual else (), qk_norm="rms_norm" if dual else None,
    )  # fmt: skip
    return model, {
        "hidden_states": r(2, 16, 8, 8), "encoder_hidden_states": r(2, 5, 12), "pooled_projections": r(2, 10), "timestep": torch.tensor([3.0, 7.0]),
    }  # fmt: skip


def flux() -> tuple[Any, dict]:
    from diffusers import FluxTransformer2DModel

    model = FluxTransformer2DModel(
        in_channels=4, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=12,
        pooled_projection_dim=10, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    return model, {
        "hidden_states": r(2, 16, 4), "encoder_hidden_states": r(2, 5, 12), "pooled_projections": r(2, 10),
        "timestep": torch.tensor([0.3, 0.7]), "img_ids": torch.zeros(16, 3), "txt_ids": torch.zeros(5, 3),
    }  # fmt: skip


def pixart() -> tuple[Any, dict]:
    from diffusers import PixArtTransformer2DModel

    model = PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, cross_attention_dim=16,
        sample_size=8, caption_channels=12, use_additional_conditions=False,
    )  # fmt: skip
    return model, {
        "hidden_states": r(2, 4, 8, 8), "encoder_hidden_states": r(2, 5, 12), "timestep": torch.tensor([3, 7]),
        "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
    }  # fmt: skip


def sana() -> tuple[Any, dict]:
    from diffusers import SanaTransformer2DModel

    model = SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=2, num_cross_attention_heads=2,
        cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=12, sample_size=8,
    )  # fmt: skip
    return model, {"hidden_states": r(2, 4, 8, 8), "encoder_hidden_states": r(2, 5, 12), "timestep": torch.tensor([3, 7])}


def lumina2() -> tuple[Any, dict]:
    from diffusers import Lumina2Transformer2DModel

    model = Lumina2Transformer2DModel(
        sample_size=8, in_channels=4, hidden_size=24, num_layers=2, num_refiner_layers=1, num_attention_heads=3, num_kv_heads=1,
        multiple_of=8, axes_dim_rope=(4, 2, 2), axes_lens=(32, 32, 32), cap_feat_dim=12,
    )  # fmt: skip
    return model, {
        "hidden_states": r(2, 4, 8, 8), "timestep": torch.tensor([0.3, 0.7]), "encoder_hidden_states": r(2, 5, 12),
        "encoder_attention_mask": torch.ones(2, 5, dtype=torch.bool),
    }  # fmt: skip


def wan() -> tuple[Any, dict]:
    from diffusers import WanTransformer3DModel

    model = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=12, freq_dim=16, ffn_dim=16, num_layers=2, rope_max_seq_len=32,
    )  # fmt: skip
    return model, {"hidden_states": r(2, 4, 2, 8, 8), "timestep": torch.tensor([3, 7]), "encoder_hidden_states": r(2, 5, 12)}


def qwen_image() -> tuple[Any, dict]:
    from diffusers import QwenImageTransformer2DModel

    model = QwenImageTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=3, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=12, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    return model, {
        "hidden_states": r(2, 16, 16), "encoder_hidden_states": r(2, 5, 12), "timestep": torch.tensor([0.3, 0.7]),
        "encoder_hidden_states_mask": torch.ones(2, 5, dtype=torch.bool), "img_shapes": [[(1, 4, 4)]] * 2,
    }  # fmt: skip


def hunyuan_dit() -> tuple[Any, dict]:
    from diffusers import HunyuanDiT2DModel
    from diffusers.models.embeddings import get_2d_rotary_pos_embed

    model = HunyuanDiT2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, patch_size=2, sample_size=8, hidden_size=16, num_layers=4, mlp_ratio=2.0,
        cross_attention_dim=12, cross_attention_dim_t5=16, pooled_projection_dim=8, text_len=5, text_len_t5=6,
        use_style_cond_and_image_meta_size=False,
    )  # fmt: skip
    rope = get_2d_rotary_pos_embed(8, ((0, 0), (4, 4)), (4, 4), output_type="pt")
    return model, {
        "hidden_states": r(2, 4, 8, 8), "timestep": torch.tensor([3.0, 7.0]), "encoder_hidden_states": r(2, 5, 12),
        "text_embedding_mask": torch.ones(2, 5), "encoder_hidden_states_t5": r(2, 6, 16), "text_embedding_mask_t5": torch.ones(2, 6),
        "image_rotary_emb": rope,
    }  # fmt: skip


def output_of(model: Any, inputs: dict) -> torch.Tensor:
    """All that a forward gives, as one row of numbers."""
    return torch.cat([part.flatten() for part in tree_leaves(model(**inputs, return_dict=False)) if isinstance(part, torch.Tensor)])


@torch.no_grad()
def shaken(model: Any) -> Any:
    """Frozen; layers that start at zero would hide every effect."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.eval().requires_grad_(False).parameters():
        if not parameter.any():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


#: name → (maker, family, component, number of sites, some addresses' layers and streams by path)
DENOISERS: dict[str, tuple[Callable[[], tuple[Any, dict]], str, str, int]] = {
    "sd15": (unet, "sd15", "unet", 14),
    "sdxl": (lambda: unet(sdxl=True), "sdxl", "unet", 16),
    "sd2": (lambda: unet(cross=1024), "sd2", "unet", 14),
    "sd3": (sd3, "sd3", "transformer", 5),
    "sd35": (lambda: sd3(dual=True), "sd3", "transformer", 7),
    "flux": (flux, "flux", "transformer", 6),
    "pixart": (pixart, "pixart", "transformer", 4),
    "sana": (sana, "sana", "transformer", 4),
    "lumina2": (lumina2, "lumina2", "transformer", 4),
    "wan": (wan, "wan", "transformer", 4),
    "qwen_image": (qwen_image, "qwen_image", "transformer", 5),
    "hunyuan_dit": (hunyuan_dit, "hunyuan_dit", "transformer", 8),
}
