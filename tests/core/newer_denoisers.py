"""Tiny random denoisers of real classes that have no file in `families/`, and of families that have, each with inputs for one forward.

`count`: how many attention outputs one step of it shows that anything reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

r = torch.randn
HEADS = {"num_attention_heads": 2, "attention_head_dim": 16}
TIME = torch.tensor([0.3, 0.7])


def flux_like(name: str, **more: Any) -> tuple[Any, dict]:
    import diffusers

    axes = (4, 4, 4, 4) if name == "Flux2Transformer2DModel" else (4, 6, 6)
    model = getattr(diffusers, name)(in_channels=4, num_layers=2, num_single_layers=2, joint_attention_dim=12, axes_dims_rope=axes, **HEADS, **more)
    inputs = {"hidden_states": r(2, 16, 4), "encoder_hidden_states": r(2, 5, 12), "timestep": TIME, "img_ids": torch.zeros(16, len(axes)), "txt_ids": torch.zeros(5, len(axes))}
    return model, inputs


def flux2() -> tuple[Any, dict]:
    model, inputs = flux_like("Flux2Transformer2DModel")
    return model, {**inputs, "guidance": TIME}


def longcat() -> tuple[Any, dict]:
    model, inputs = flux_like("LongCatImageTransformer2DModel", pooled_projection_dim=8)
    return model, {**inputs, "guidance": TIME}


def chroma() -> tuple[Any, dict]:
    return flux_like("ChromaTransformer2DModel", approximator_num_channels=8, approximator_hidden_dim=16, approximator_layers=1)


def z_image() -> tuple[Any, dict]:
    from diffusers import ZImageTransformer2DModel

    model = ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=12, axes_dims=[4, 6, 6], axes_lens=[64, 32, 32]
    )
    return model, {"x": [r(4, 1, 8, 8)], "t": torch.tensor([0.3]), "cap_feats": [r(5, 12)]}


def ltx2() -> tuple[Any, dict]:
    from diffusers import LTX2VideoTransformer3DModel

    model = LTX2VideoTransformer3DModel(
        in_channels=4, out_channels=4, cross_attention_dim=32, audio_in_channels=4, audio_out_channels=4, audio_num_attention_heads=2,
        audio_attention_head_dim=8, audio_cross_attention_dim=16, num_layers=2, caption_channels=12, **HEADS,
    )  # fmt: skip
    return model, {
        "hidden_states": r(1, 8, 4), "audio_hidden_states": r(1, 6, 4), "encoder_hidden_states": r(1, 5, 12), "audio_encoder_hidden_states": r(1, 5, 12),
        "timestep": torch.tensor([300.0]), "encoder_attention_mask": torch.ones(1, 5), "audio_encoder_attention_mask": torch.ones(1, 5),
        "num_frames": 2, "height": 2, "width": 2, "audio_num_frames": 6,
    }  # fmt: skip


def krea2() -> tuple[Any, dict]:
    from diffusers import Krea2Transformer2DModel

    model = Krea2Transformer2DModel(
        in_channels=4, num_layers=2, num_key_value_heads=1, intermediate_size=32, timestep_embed_dim=16, text_hidden_dim=16, num_text_layers=2,
        text_num_attention_heads=2, text_num_key_value_heads=2, text_intermediate_size=16, num_layerwise_text_blocks=1, num_refiner_text_blocks=1,
        axes_dims_rope=(4, 6, 6), **HEADS,
    )  # fmt: skip
    return model, {"hidden_states": r(2, 16, 4), "encoder_hidden_states": r(2, 5, 2, 16), "timestep": TIME, "position_ids": torch.zeros(21, 3)}


def hidream() -> tuple[Any, dict]:
    from diffusers import HiDreamImageTransformer2DModel

    model = HiDreamImageTransformer2DModel(
        patch_size=2, in_channels=4, out_channels=4, num_layers=2, num_single_layers=2, caption_channels=[12, 12], text_emb_dim=8, num_routed_experts=2,
        num_activated_experts=1, axes_dims_rope=(4, 6, 6), max_resolution=(8, 8), llama_layers=[0, 1, 2, 3], force_inference_output=True, **HEADS,
    )  # fmt: skip
    return model, {
        "hidden_states": r(1, 4, 8, 8), "timesteps": torch.tensor([3]), "encoder_hidden_states_t5": r(1, 5, 12),
        "encoder_hidden_states_llama3": r(4, 1, 5, 12), "pooled_embeds": r(1, 8),
    }  # fmt: skip


def cosmos() -> tuple[Any, dict]:
    from diffusers import CosmosTransformer3DModel

    model = CosmosTransformer3DModel(
        in_channels=4, out_channels=4, num_layers=2, text_embed_dim=12, adaln_lora_dim=4, max_size=(4, 8, 8), extra_pos_embed_type=None,
        num_attention_heads=2, attention_head_dim=18,
    )  # fmt: skip
    return model, {
        "hidden_states": r(1, 4, 1, 8, 8), "timestep": torch.tensor([0.5]), "encoder_hidden_states": r(1, 5, 12), "padding_mask": torch.zeros(1, 1, 8, 8), "fps": 16,
    }  # fmt: skip


def ideogram4() -> tuple[Any, dict]:
    from diffusers import Ideogram4Transformer2DModel
    from diffusers.models.transformers import transformer_ideogram4 as module

    model = Ideogram4Transformer2DModel(in_channels=4, num_layers=2, intermediate_size=32, adaln_dim=8, llm_features_dim=12, mrope_section=(4, 2, 2), **HEADS)
    roles = torch.tensor([[module.LLM_TOKEN_INDICATOR] * 5 + [module.OUTPUT_IMAGE_INDICATOR] * 16])
    return model, {
        "hidden_states": r(1, 21, 4), "timestep": torch.tensor([0.5]), "encoder_hidden_states": r(1, 21, 12), "position_ids": torch.zeros(1, 21, 3, dtype=torch.long),
        "segment_ids": torch.zeros(1, 21, dtype=torch.long), "indicator": roles,
    }  # fmt: skip


def ernie() -> tuple[Any, dict]:
    from diffusers import ErnieImageTransformer2DModel

    model = ErnieImageTransformer2DModel(
        hidden_size=32, num_attention_heads=2, num_layers=2, ffn_hidden_size=32, in_channels=4, out_channels=4, text_in_dim=12, rope_axes_dim=(4, 6, 6)
    )
    return model, {"hidden_states": r(2, 4, 4, 4), "timestep": torch.tensor([3, 7]), "text_bth": r(2, 5, 12), "text_lens": torch.tensor([5, 4])}


def kandinsky5() -> tuple[Any, dict]:
    from diffusers import Kandinsky5Transformer3DModel

    model = Kandinsky5Transformer3DModel(
        in_text_dim=12, in_text_dim2=8, time_dim=16, model_dim=32, ff_dim=32, num_text_blocks=1, num_visual_blocks=2, axes_dims=(4, 6, 6)
    )
    return model, {
        "hidden_states": r(1, 1, 8, 8, 4), "encoder_hidden_states": r(1, 5, 12), "timestep": torch.tensor([300.0]), "pooled_projections": r(1, 8),
        "visual_rope_pos": [torch.arange(1), torch.arange(4), torch.arange(4)], "text_rope_pos": torch.arange(5),
    }  # fmt: skip


def qwen_image21() -> tuple[Any, dict]:
    from diffusers import QwenImage21Transformer2DModel

    model = QwenImage21Transformer2DModel(in_channels=4, out_channels=4, num_layers=2, context_in_dim=12, axes_dims_rope=(4, 6, 6), **HEADS)
    slots = torch.tensor([[False] * 5 + [True] * 4])
    return model, {
        "hidden_states": r(1, 16, 4), "encoder_hidden_states": r(1, 5, 12), "timestep": torch.tensor([0.5]), "img_shapes": [[(1, 4, 4)]], "img_mask": slots,
    }  # fmt: skip


#: name → (maker, number of attention outputs that are read)
NEWER: dict[str, tuple[Callable[[], tuple[Any, dict]], int]] = {
    "flux2": (flux2, 6),
    "z_image": (z_image, 4),
    "chroma": (chroma, 6),
    "longcat": (longcat, 6),
    "ltx2": (ltx2, 12),
    "krea2": (krea2, 4),
    "hidream": (hidream, 6),
    "cosmos": (cosmos, 4),
    "ideogram4": (ideogram4, 2),
    "ernie": (ernie, 2),
    "kandinsky5": (kandinsky5, 5),
    "qwen_image21": (qwen_image21, 2),
}
