"""The embedded transformer's shape: SD3's layout, small."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .codec import CHANNELS, PATCH
from .scene import SIZE
from .text_encoder import WIDTH

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel

LAYERS = 4
LATENT_SIZE = SIZE // PATCH


def transformer_config(layers: int, latent_size: int) -> dict[str, int]:
    """Settings of a model of `layers` blocks for latents of `latent_size` cells a side."""
    return {
        "sample_size": latent_size,
        "patch_size": 2,
        "in_channels": CHANNELS,
        "out_channels": CHANNELS,
        # Hosts that know SD3 read depth as width / 64, so layers, heads and width go together.
        "num_layers": layers,
        "attention_head_dim": 64,
        "num_attention_heads": layers,
        "caption_projection_dim": 64 * layers,
        "joint_attention_dim": WIDTH,
        "pooled_projection_dim": WIDTH,
        # A larger table would squeeze the grid until neighbours share an embedding.
        "pos_embed_max_size": latent_size // 2,
    }


TRANSFORMER_CONFIG = transformer_config(LAYERS, LATENT_SIZE)


def build_transformer(config: dict[str, int] = TRANSFORMER_CONFIG) -> SD3Transformer2DModel:
    """A randomly initialised transformer, of the embedded shape unless another is given."""
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(**config)
