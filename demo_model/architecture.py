"""The embedded transformer's shape: SD3's layout, small."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .codec import CHANNELS, PATCH
from .scenes import SIZE
from .text_encoder import WIDTH

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel

LAYERS = 3
LATENT_SIZE = SIZE // PATCH

# Hosts that know SD3 read depth as width / 64, so layers, heads and width go together.
TRANSFORMER_CONFIG = {
    "sample_size": LATENT_SIZE,
    "patch_size": 2,
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "num_layers": LAYERS,
    "attention_head_dim": 64,
    "num_attention_heads": LAYERS,
    "caption_projection_dim": 64 * LAYERS,
    "joint_attention_dim": WIDTH,
    "pooled_projection_dim": WIDTH,
    # A larger table would squeeze the grid until neighbours share an embedding.
    "pos_embed_max_size": LATENT_SIZE // 2,
}


def build_transformer() -> SD3Transformer2DModel:
    """A randomly initialised transformer of the embedded shape."""
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(**TRANSFORMER_CONFIG)
