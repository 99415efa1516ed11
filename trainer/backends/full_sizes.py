"""The published models' shapes, as far as they differ from their diffusers classes' defaults: what `plan` knows without a folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_SD_UNET = {
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (320, 640, 1280, 1280), "sample_size": 64,
}  # fmt: skip
_SDXL_UNET = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), "block_out_channels": (320, 640, 1280),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "transformer_layers_per_block": (1, 2, 10), "sample_size": 128,
    "attention_head_dim": (5, 10, 20), "cross_attention_dim": 2048, "use_linear_projection": True, "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
_KL = {
    "block_out_channels": (128, 256, 512, 512), "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2, "sample_size": 1024,
}  # fmt: skip
_KL16 = {**_KL, "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False, "scaling_factor": 0.3611, "shift_factor": 0.1159}

_DC = {
    "encoder_block_types": ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3, "decoder_block_types": ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
    "encoder_layers_per_block": (2, 2, 2, 3, 3, 3), "encoder_qkv_multiscales": ((), (), (), (), (), ()), "upsample_block_type": "interpolate",
    "downsample_block_type": "Conv", "decoder_qkv_multiscales": ((), (), (), (5,), (5,), (5,)), "scaling_factor": 0.41407,
}  # fmt: skip


@dataclass(frozen=True)
class FullSize:
    """A published model. `text` is the number of its text encoders' parameters, together."""

    pipeline: str  # diffusers' class
    denoiser: str
    text: float
    config: dict[str, Any] = field(default_factory=dict)
    vae: str = "AutoencoderKL"
    vae_config: dict[str, Any] = field(default_factory=dict)


FULL_SIZES: dict[str, FullSize] = {
    "sd15": FullSize("StableDiffusionPipeline", "UNet2DConditionModel", 0.12e9, {**_SD_UNET, "cross_attention_dim": 768}, vae_config=_KL),
    "sd2": FullSize(
        "StableDiffusionPipeline", "UNet2DConditionModel", 0.34e9,
        {**_SD_UNET, "cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True, "sample_size": 96}, vae_config=_KL,
    ),
    "sdxl": FullSize("StableDiffusionXLPipeline", "UNet2DConditionModel", 0.82e9, _SDXL_UNET, vae_config=_KL),
    "sd3": FullSize(
        "StableDiffusion3Pipeline", "SD3Transformer2DModel", 5.58e9,
        {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536, "pos_embed_max_size": 192}, vae_config=_KL16,
    ),
    "sd35-large": FullSize(
        "StableDiffusion3Pipeline", "SD3Transformer2DModel", 5.58e9,
        {"num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432, "pos_embed_max_size": 192, "qk_norm": "rms_norm"}, vae_config=_KL16,
    ),
    "flux": FullSize("FluxPipeline", "FluxTransformer2DModel", 4.89e9, {"guidance_embeds": True}, vae_config=_KL16),
    "flux2": FullSize("Flux2Pipeline", "Flux2Transformer2DModel", 24.0e9, vae="AutoencoderKLFlux2"),
    "flux2-klein-4b": FullSize(
        "Flux2KleinPipeline", "Flux2Transformer2DModel", 4.02e9,
        {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680, "guidance_embeds": False}, "AutoencoderKLFlux2",
    ),
    "flux2-klein-9b": FullSize(
        "Flux2KleinPipeline", "Flux2Transformer2DModel", 8.19e9,
        {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288, "guidance_embeds": False}, "AutoencoderKLFlux2",
    ),
    "qwen_image": FullSize("QwenImagePipeline", "QwenImageTransformer2DModel", 8.29e9, vae="AutoencoderKLQwenImage"),
    "z_image": FullSize("ZImagePipeline", "ZImageTransformer2DModel", 4.02e9, vae_config=_KL16),
    "chroma": FullSize("ChromaPipeline", "ChromaTransformer2DModel", 4.76e9, vae_config=_KL16),
    "lumina2": FullSize("Lumina2Pipeline", "Lumina2Transformer2DModel", 2.61e9, {"cap_feat_dim": 2304, "axes_lens": (300, 512, 512)}, vae_config=_KL16),
    "sana": FullSize("SanaPipeline", "SanaTransformer2DModel", 2.61e9, vae="AutoencoderDC", vae_config=_DC),
    "wan-1.3b": FullSize(
        "WanPipeline", "WanTransformer3DModel", 5.68e9, {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}, "AutoencoderKLWan"
    ),
    "wan-14b": FullSize("WanPipeline", "WanTransformer3DModel", 5.68e9, vae="AutoencoderKLWan"),
}  # fmt: skip
