"""The embedded base model as the host's MODEL, CLIP and VAE, so that stock nodes sample it. Same seed, same picture as DemoPipeline.

Every part is the host's own class holding our weights: the host's SD3 transformer, its CLIP around our word encoder, its
VAE around our codec. All in fp32: the whole model is a few megabytes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..demo_model.architecture import LATENT_SIZE, TRANSFORMER_CONFIG
from ..demo_model.codec import CHANNELS, PATCH, PatchCodec
from ..demo_model.pipeline import load_part
from ..demo_model.text_encoder import WordEncoder
from ..demo_model.vocabulary import tokenize


def load_model() -> Any:
    """The transformer as a ModelPatcher, with the noise levels and latents that it was trained with."""
    import comfy.sd

    weights = load_part("transformer")
    width = TRANSFORMER_CONFIG["attention_head_dim"] * TRANSFORMER_CONFIG["num_attention_heads"]
    weights["pos_embed.pos_embed"] = position_table(width, TRANSFORMER_CONFIG["pos_embed_max_size"])[None]
    patcher = comfy.sd.load_diffusion_model_state_dict(weights, model_options={"dtype": torch.float32})
    if patcher is None:
        raise RuntimeError("this ComfyUI does not recognise the embedded base model as SD3; update ComfyUI, or report its version.")
    patcher.model.model_sampling.set_parameters(shift=1.0)  # SD3 is 3: its training saw more noise than ours
    patcher.model.latent_format = _latent_format()
    return patcher


def load_clip() -> Any:
    """The word encoder as a CLIP. A word outside the vocabulary raises UnknownWordError where the text is encoded."""
    import comfy.sd
    import comfy.supported_models_base

    target = comfy.supported_models_base.ClipTarget(WordTokenizer, WordModel)
    return comfy.sd.CLIP(target, model_options={"dtype": torch.float32})


def load_vae() -> Any:
    """The codec as a VAE with 6 pixels per latent cell."""
    import comfy.model_patcher
    import comfy.sd
    import comfy.taesd.taesd

    # The host's VAE takes only layouts that it knows. One with as many channels is made, and gets our model in place of its own:
    # so all that a VAE of this host's version has and does is there.
    vae = comfy.sd.VAE(comfy.taesd.taesd.TAESD(latent_channels=CHANNELS).state_dict(), dtype=torch.float32)
    codec = PatchCodec()
    codec.load_state_dict(load_part("codec"))
    vae.first_stage_model = codec.eval().requires_grad_(False)
    vae.downscale_ratio = vae.upscale_ratio = PATCH
    vae.process_input = lambda image: image * 2 - 1
    vae.process_output = lambda image: image.add_(1).div_(2).clamp_(0, 1)  # in place: newer hosts don't take what it returns
    # Activations of 64 channels at latent resolution and 16 at pixel resolution, a few at a time.
    vae.memory_used_decode = lambda shape, dtype: 4 * 1024 * shape[-2] * shape[-1]
    vae.memory_used_encode = lambda shape, dtype: 4 * 64 * shape[-2] * shape[-1]
    vae.patcher = comfy.model_patcher.ModelPatcher(codec, load_device=vae.patcher.load_device, offload_device=vae.patcher.offload_device)
    vae.size = None  # it was the other model's
    vae.model_size()
    return vae


def empty_latent(rows: int) -> dict[str, Tensor]:
    """The LATENT of pictures of 96×96 pixels. (The host's own empty latents reckon with 8 pixels per cell.)"""
    import comfy.model_management

    return {"samples": torch.zeros(rows, CHANNELS, LATENT_SIZE, LATENT_SIZE, device=comfy.model_management.intermediate_device())}


def position_table(width: int, size: int) -> Tensor:
    """SD3's sine and cosine positions (size², width), which the weights file leaves out: the column's half, then the row's."""
    frequencies = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(size, dtype=torch.float64)[:, None] * frequencies
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns, rows = line[None].expand(size, -1, -1), line[:, None].expand(-1, size, -1)
    return torch.cat([columns, rows], dim=2).reshape(size * size, width).float()


def _latent_format() -> Any:
    from comfy.latent_formats import LatentFormat

    codec = load_part("codec")

    class DemoLatents(LatentFormat):
        """As the codec makes them. The factors show a latent cell as its patch's mean colour, in previews."""

        scale_factor = 1.0
        latent_channels = CHANNELS
        spacial_downscale_ratio = PATCH  # newer hosts then scale their own empty latents
        latent_rgb_factors = codec["decode_matrix"].view(3, PATCH * PATCH, CHANNELS).mean(1).T.tolist()
        latent_rgb_factors_bias = codec["mean"].view(3, PATCH * PATCH).mean(1).tolist()

    return DemoLatents()


class WordTokenizer:
    """Text → token ids in the host's shape: {encoder: [[(id, weight), …]]}. "(word:1.2)" has no meaning here and is refused as a word."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
        pass

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **_: Any) -> dict[str, list[list[tuple]]]:
        pairs = [(token, 1.0) for token in tokenize(text)]
        if return_word_ids:
            pairs = [(*pair, number + 1) for number, pair in enumerate(pairs)]
        return {"demo": [pairs]}

    def state_dict(self) -> dict[str, Any]:
        return {}


class WordModel(nn.Module):
    """The word encoder with the methods that the host's CLIP calls."""

    def __init__(self, device: Any = None, dtype: torch.dtype | None = None, model_options: Any = None) -> None:
        super().__init__()
        self.encoder = WordEncoder()
        self.encoder.load_state_dict(load_part("text_encoder"))
        self.to(device=device, dtype=dtype).eval().requires_grad_(False)
        self.dtypes = {dtype or torch.float32}

    def encode_token_weights(self, tokens: dict[str, list[list[tuple]]]) -> tuple[Tensor, Tensor]:
        import comfy.model_management

        ids = torch.tensor([[pair[0] for pair in row] for row in tokens["demo"]], device=self.encoder.positions.device)
        context, pooled = self.encoder(ids)
        device = comfy.model_management.intermediate_device()
        return context.to(device), pooled.to(device)

    def set_clip_options(self, options: dict[str, Any]) -> None:
        """The host's options choose a layer or a projection; there is only one of each here."""

    def reset_clip_options(self) -> None:
        pass

    def load_sd(self, weights: dict[str, Tensor]) -> Any:
        return self.load_state_dict(weights, strict=False)
