"""Which base a LoRA says it was made for, or lets one guess: for messages alone, nothing depends on it."""

from __future__ import annotations

from ..sparsedict_core.text_encoders import is_text_encoder
from .lora_file import LoraFile
from .updates import widths

_FLUX = ("flux", "flux2", "chroma")
_REFINED = ("z_image", "lumina2")
#: A piece of a module's name that only LoRAs of some families have → these, as this project calls them.
_TELLTALES = {
    "double_blocks": _FLUX, "single_transformer_blocks": _FLUX, "joint_blocks": ("sd3",), "cross_attn_q_linear": ("sana",), "cross_attn.q_linear": ("sana",),
    "self_attn": ("wan",), "cross_attn": ("wan",), "noise_refiner": _REFINED, "context_refiner": _REFINED,
}  # fmt: skip
_TEXT_WIDTHS = {768: "sd15", 1024: "sd2", 2048: "sdxl"}


def base_of(file: LoraFile) -> str | None:
    """In the trainer's own words, else by the names of the modules, else by the width of a UNet's text; None where nothing tells."""
    for field in ("modelspec.architecture", "ss_base_model_version", "ss_sd_model_name"):
        name = file.text.get(field, "").removesuffix("/lora").strip()
        if name:
            return name[:60]
    for name, module in file.modules.items():
        if name.endswith(("attn2_to_k", "attn2.to_k", "attn2.processor.to_k")):
            return _TEXT_WIDTHS.get(widths(file, module)[0])
    return " or ".join(names_tell(file)) or None


def names_tell(file: LoraFile) -> tuple[str, ...]:
    """The families of which one or another has such names; empty where nothing tells."""
    names = [name for name in file.modules if not is_text_encoder(name)]
    return next((families for telltale, families in _TELLTALES.items() if any(telltale in name for name in names)), ())
