"""Tiny pipelines of the real diffusers classes with random weights, saved as folders. No network, and milliseconds a forward."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

TEXT_LENGTH = 16  # tokens of a caption
SIDE = 16  # pixels of a picture: 8 × 8 latents
LATENT_SCALE = 2
WIDTH = 16


def byte_letters() -> list[str]:
    """The 256 characters that byte-level BPE writes bytes as."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def clip_tokenizer() -> Any:
    """CLIP's tokenizer with bytes for a vocabulary and no merges."""
    from transformers import CLIPTokenizer

    letters = byte_letters()
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=TEXT_LENGTH)


def t5_tokenizer() -> Any:
    """T5's tokenizer with a unigram vocabulary of single letters."""
    from transformers import T5TokenizerFast

    letters = [(chr(code), -3.0) for code in range(33, 127)]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *letters]
    return T5TokenizerFast(vocab=vocabulary, extra_ids=0, model_max_length=TEXT_LENGTH)


def clip_encoder(projection: bool = False, width: int = WIDTH) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=514, hidden_size=width, intermediate_size=width, num_hidden_layers=2, num_attention_heads=2, projection_dim=width,
        max_position_embeddings=TEXT_LENGTH, bos_token_id=512, eos_token_id=513, pad_token_id=513,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def t5_encoder(width: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(vocab_size=98, d_model=width, d_kv=8, d_ff=width, num_layers=1, num_heads=2))


def vae(latent_channels: int = 4, shift: float | None = None) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1, latent_channels=latent_channels, sample_size=SIDE, scaling_factor=0.5, shift_factor=shift, mid_block_add_attention=False,
    )  # fmt: skip


def unet(sdxl: bool = False) -> Any:
    from diffusers import UNet2DConditionModel

    extra: dict[str, Any] = {}
    if sdxl:
        extra = {
            "addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 6 * 4 + WIDTH,
            "transformer_layers_per_block": 1, "use_linear_projection": True,
        }  # fmt: skip
    return UNet2DConditionModel(
        sample_size=SIDE // LATENT_SCALE, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=2 * WIDTH if sdxl else WIDTH, attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **extra,
    )  # fmt: skip


def sd15(prediction_type: str = "epsilon") -> Any:
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1, prediction_type=prediction_type
    )
    return StableDiffusionPipeline(
        vae=vae(), text_encoder=clip_encoder(), tokenizer=clip_tokenizer(), unet=unet(), scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sdxl() -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    scheduler = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1)
    return StableDiffusionXLPipeline(
        vae=vae(), text_encoder=clip_encoder(), text_encoder_2=clip_encoder(projection=True), tokenizer=clip_tokenizer(), tokenizer_2=clip_tokenizer(),
        unet=unet(sdxl=True), scheduler=scheduler, add_watermarker=False,
    )  # fmt: skip


def sd3(encoders: tuple[bool, bool, bool] = (True, True, True)) -> Any:
    """`encoders`: which of CLIP-L, CLIP-G and T5 the folder has."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    transformer = SD3Transformer2DModel(
        sample_size=SIDE // LATENT_SCALE, num_layers=2, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=40, caption_projection_dim=16,
        pooled_projection_dim=2 * WIDTH, pos_embed_max_size=16, in_channels=4, out_channels=4,
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=vae(shift=0.1),
        text_encoder=clip_encoder(projection=True) if encoders[0] else None, tokenizer=clip_tokenizer() if encoders[0] else None,
        text_encoder_2=clip_encoder(projection=True) if encoders[1] else None, tokenizer_2=clip_tokenizer() if encoders[1] else None,
        text_encoder_3=t5_encoder(40) if encoders[2] else None, tokenizer_3=t5_tokenizer() if encoders[2] else None,
    )  # fmt: skip


def flux(guidance: bool = True) -> Any:
    """`guidance`: as Flux dev, with the guidance embedded; else as schnell."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=24,
        pooled_projection_dim=WIDTH, axes_dims_rope=(4, 6, 6), guidance_embeds=guidance,
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0 if guidance else 1.0, use_dynamic_shifting=guidance, base_image_seq_len=4, max_image_seq_len=16)
    return FluxPipeline(
        transformer=transformer, scheduler=scheduler, vae=vae(shift=0.1), text_encoder=clip_encoder(), tokenizer=clip_tokenizer(),
        text_encoder_2=t5_encoder(24), tokenizer_2=t5_tokenizer(),
    )  # fmt: skip


PIPELINES: dict[str, Callable[..., Any]] = {"sd15": sd15, "sdxl": sdxl, "sd3": sd3, "flux": flux}


def save_tiny(name: str, folder: Path, seed: int = 0, **options: Any) -> Path:
    """Builds the pipeline of that name, here or in `tiny_large_pipelines`, with weights drawn from `seed`, saves it into `folder` and returns that."""
    from tiny_large_pipelines import LARGE

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = (PIPELINES | LARGE)[name](**options)
        for module in (getattr(pipeline, "unet", None), getattr(pipeline, "transformer", None)):
            for parameter in module.parameters() if module is not None else ():
                if not parameter.any():  # layers that start at zero would hide every gradient behind them
                    torch.nn.init.normal_(parameter, std=0.1)
    pipeline.save_pretrained(str(folder))
    return folder


def save_single_file(pipeline: Any, path: Path) -> Path:
    """An SD1.5 pipeline's weights under the names that the original checkpoints have, in one file."""
    from safetensors.torch import save_file

    per_block = pipeline.unet.config.layers_per_block + 1
    last_vae_block = len(pipeline.vae.config.block_out_channels) - 1
    tensors = {f"model.diffusion_model.{original_unet_name(name, per_block)}": tensor for name, tensor in pipeline.unet.state_dict().items()}
    tensors |= {f"first_stage_model.{original_vae_name(name, last_vae_block)}": tensor for name, tensor in pipeline.vae.state_dict().items()}
    prefix = "" if hasattr(pipeline.text_encoder, "text_model") else "text_model."
    tensors |= {f"cond_stage_model.transformer.{prefix}{name}": tensor for name, tensor in pipeline.text_encoder.state_dict().items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(path))
    return path


def original_unet_name(name: str, per_block: int) -> str:
    """`per_block`: resnets of a down block, and one for the step between blocks."""
    for pattern, number in (
        (r"^down_blocks\.(\d+)\.(resnets|attentions)\.(\d+)", lambda m: f"input_blocks.{1 + int(m[1]) * per_block + int(m[3])}.{int(m[2] == 'attentions')}"),
        (r"^down_blocks\.(\d+)\.downsamplers\.0\.conv", lambda m: f"input_blocks.{(int(m[1]) + 1) * per_block}.0.op"),
        (r"^up_blocks\.(\d+)\.(resnets|attentions)\.(\d+)", lambda m: f"output_blocks.{int(m[1]) * per_block + int(m[3])}.{int(m[2] == 'attentions')}"),
        # After the attention; the tiny UNet has one in the only up block that is followed by another.
        (r"^up_blocks\.(\d+)\.upsamplers\.0\.conv", lambda m: f"output_blocks.{(int(m[1]) + 1) * per_block - 1}.2.conv"),
        (r"^mid_block\.resnets\.(\d+)", lambda m: f"middle_block.{2 * int(m[1])}"),
        (r"^mid_block\.attentions\.0", lambda m: "middle_block.1"),
    ):
        name = re.sub(pattern, number, name)
    for ours, theirs in {
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in.": "input_blocks.0.0.", "conv_norm_out": "out.0",
        "conv_out": "out.2", "norm1.": "in_layers.0.", "conv1.": "in_layers.2.", "time_emb_proj": "emb_layers.1", "norm2.": "out_layers.0.",
        "conv2.": "out_layers.3.", "conv_shortcut": "skip_connection",
    }.items():  # fmt: skip
        if "transformer_blocks" not in name:  # whose norms keep their names
            name = name.replace(ours, theirs)
    return name


def original_vae_name(name: str, last: int) -> str:
    """`last`: the number of the deepest block; the decoder counts from the other end."""
    name = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{last - int(m[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    return name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
