"""What a model of ComfyUI's says of itself: its family's usual sizes, what its denoiser predicts, how its latents relate to pixels."""

from __future__ import annotations

from typing import Any

from torch import nn

#: Side of the pictures that a family was trained on, and the guidance that it is usually sampled with.
USUAL = {
    "sd15": (512, 7.0), "sd2": (768, 7.0), "sdxl": (1024, 5.0), "sd3": (1024, 5.0), "flux": (1024, 1.0), "flux2": (1024, 1.0),
    "wan": (512, 5.0), "hunyuan_video": (512, 1.0), "hunyuan_dit": (1024, 5.0), "qwen_image": (1024, 4.0), "lumina2": (1024, 4.0),
    # Z-Image's usual file is the distilled one.
    "z_image": (1024, 1.0), "chroma": (1024, 5.0), "chroma_radiance": (1024, 5.0), "longcat_image": (1024, 4.5),
}  # fmt: skip


def prediction_of(sampling: Any) -> str:
    """What the denoiser predicts, in the trainer's words; "other" where the target is worked out from the host's formula."""
    import comfy.model_sampling as host

    if isinstance(sampling, host.CONST):
        return "flow"
    if isinstance(sampling, host.EDM | host.X0) or type(sampling).__name__ == "IMG_TO_IMG":
        return "other"
    if isinstance(sampling, host.V_PREDICTION):
        return "v" if getattr(sampling, "sigma_data", 1.0) == 1.0 else "other"
    if isinstance(sampling, host.EPS):
        return "epsilon" if getattr(sampling, "sigma_data", 1.0) == 1.0 else "other"
    return "other"


def latent_scale(vae: Any, latent_format: Any) -> int:
    """Pixels per latent cell."""
    if vae is not None:
        return int(vae.spacial_compression_encode())
    return int(getattr(latent_format, "spacial_downscale_ratio", 8))


def patch_size(network: nn.Module) -> int:
    """Latent cells that one token takes, or by which a UNet's latents must divide."""
    patch = getattr(network, "patch_size", None)
    if isinstance(patch, int):
        return patch
    if isinstance(patch, tuple | list):
        return int(patch[-1])
    return 8 if hasattr(network, "input_blocks") else 2


def knows_few_words(clip: Any) -> bool:
    """Whether the CLIP is the embedded base's, which knows its own vocabulary only."""
    return type(getattr(clip, "tokenizer", None)).__name__ == "WordTokenizer"
