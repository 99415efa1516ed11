"""Tiny pipelines of the large families' real classes with random weights, beside `tiny_pipelines`, whose parts they use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tiny_pipelines as tiny

CHAT = "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}{% else %}{{ message['content'][0]['text'] }}{% endif %}{% endfor %}"
WIDTH = 16


def chat_tokenizer(longest: int = 48) -> Any:
    """Qwen's tokenizer with bytes for a vocabulary and no merges."""
    from transformers import Qwen2Tokenizer

    words = [*tiny.byte_letters(), "<|endoftext|>"]
    tokenizer = Qwen2Tokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=longest)
    tokenizer.chat_template = CHAT
    return tokenizer


def _language(name: str, layers: int = 2) -> Any:
    import transformers

    return getattr(transformers, f"{name}Config")(
        vocab_size=300, hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=layers, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
    )  # fmt: skip


def qwen3(layers: int = 2, causal: bool = False) -> Any:
    from transformers import Qwen3ForCausalLM, Qwen3Model

    return (Qwen3ForCausalLM if causal else Qwen3Model)(_language("Qwen3", layers))


def gemma2() -> Any:
    from transformers import Gemma2Model

    return Gemma2Model(_language("Gemma2"))


def qwen_vl() -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {
        "vocab_size": 300, "hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}, "max_position_embeddings": 2048,
    }  # fmt: skip
    vision = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": WIDTH}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))


def mistral3(layers: int) -> Any:
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration, PixtralVisionConfig

    vision = PixtralVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    return Mistral3ForConditionalGeneration(Mistral3Config(text_config=_language("Mistral", layers), vision_config=vision))


def umt5() -> Any:
    from transformers import UMT5Config, UMT5EncoderModel

    return UMT5EncoderModel(UMT5Config(vocab_size=98, d_model=WIDTH, d_kv=8, d_ff=WIDTH, num_layers=1, num_heads=2))


def _flow(**more: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**more)


def _flux2_parts(guidance: bool, wide: int) -> dict[str, Any]:
    from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel

    transformer = Flux2Transformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=3 * wide,
        timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=guidance,
    )  # fmt: skip
    codec = AutoencoderKLFlux2(
        block_out_channels=(8, 8), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1, latent_channels=4, mid_block_add_attention=False,
    )  # fmt: skip
    return {"transformer": transformer, "vae": codec, "scheduler": _flow(use_dynamic_shifting=True)}


def flux2() -> Any:
    from diffusers import Flux2Pipeline

    return Flux2Pipeline(**_flux2_parts(True, WIDTH), text_encoder=mistral3(31), tokenizer=chat_tokenizer(320))


def flux2_klein(distilled: bool = True) -> Any:
    from diffusers import Flux2KleinPipeline

    return Flux2KleinPipeline(**_flux2_parts(False, WIDTH), text_encoder=qwen3(28, causal=True), tokenizer=chat_tokenizer(), is_distilled=distilled)


def _video_codec(kind: str) -> Any:
    import diffusers

    return getattr(diffusers, kind)(
        base_dim=4, z_dim=4, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[False], latents_mean=[0.1] * 4, latents_std=[1.5] * 4
    )


def qwen_image() -> Any:
    from diffusers import QwenImagePipeline, QwenImageTransformer2DModel

    transformer = QwenImageTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=WIDTH, axes_dims_rope=(4, 6, 6)
    )
    return QwenImagePipeline(
        transformer=transformer, vae=_video_codec("AutoencoderKLQwenImage"), scheduler=_flow(use_dynamic_shifting=True), text_encoder=qwen_vl(),
        tokenizer=chat_tokenizer(512),
    )  # fmt: skip


def z_image(shift: float = 3.0) -> Any:
    from diffusers import ZImagePipeline, ZImageTransformer2DModel

    transformer = ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=WIDTH, axes_dims=[4, 6, 6], axes_lens=[1024, 64, 64]
    )
    return ZImagePipeline(transformer=transformer, vae=tiny.vae(shift=0.1), scheduler=_flow(shift=shift), text_encoder=qwen3(), tokenizer=chat_tokenizer())


def chroma() -> Any:
    from diffusers import ChromaPipeline, ChromaTransformer2DModel

    transformer = ChromaTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=24, axes_dims_rope=(4, 6, 6),
        approximator_num_channels=8, approximator_hidden_dim=16, approximator_layers=1,
    )  # fmt: skip
    return ChromaPipeline(
        transformer=transformer, vae=tiny.vae(shift=0.1), scheduler=_flow(), text_encoder=tiny.t5_encoder(24), tokenizer=tiny.t5_tokenizer()
    )


def lumina2() -> Any:
    from diffusers import Lumina2Pipeline, Lumina2Transformer2DModel

    transformer = Lumina2Transformer2DModel(
        sample_size=8, in_channels=4, hidden_size=32, num_layers=2, num_refiner_layers=1, num_attention_heads=2, num_kv_heads=1, multiple_of=16,
        axes_dim_rope=(4, 6, 6), axes_lens=(300, 64, 64), cap_feat_dim=WIDTH,
    )  # fmt: skip
    return Lumina2Pipeline(
        transformer=transformer, vae=tiny.vae(shift=0.1), scheduler=_flow(shift=6.0), text_encoder=gemma2(), tokenizer=tiny.t5_tokenizer()
    )


def sana() -> Any:
    from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel

    transformer = SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=2, num_cross_attention_heads=2, cross_attention_head_dim=8,
        cross_attention_dim=16, caption_channels=WIDTH, sample_size=8,
    )  # fmt: skip
    codec = AutoencoderDC(
        latent_channels=4, attention_head_dim=2, encoder_block_types=("ResBlock",) * 2, decoder_block_types=("ResBlock",) * 2,
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()), decoder_qkv_multiscales=((), ()), scaling_factor=0.5,
    )  # fmt: skip
    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    return SanaPipeline(transformer=transformer, vae=codec, scheduler=scheduler, text_encoder=gemma2(), tokenizer=tiny.t5_tokenizer())


def wan() -> Any:
    from diffusers import UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel

    transformer = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=WIDTH, freq_dim=16, ffn_dim=32, num_layers=2, rope_max_seq_len=64
    )
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    return WanPipeline(
        transformer=transformer, vae=_video_codec("AutoencoderKLWan"), scheduler=scheduler, text_encoder=umt5(), tokenizer=tiny.t5_tokenizer()
    )


LARGE: dict[str, Callable[..., Any]] = {
    "flux2": flux2, "flux2_klein": flux2_klein, "qwen_image": qwen_image, "z_image": z_image, "chroma": chroma, "lumina2": lumina2, "sana": sana, "wan": wan,
}  # fmt: skip
