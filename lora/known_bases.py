"""Which base a LoRA says it was made for, or lets one guess: for messages alone, nothing depends on it."""

from __future__ import annotations

from .lora_file import LoraFile
from .updates import widths

#: A piece of a module's name that only LoRAs of one family have → that family, as this project calls it.
_TELLTALES = {
    "double_blocks": "flux", "single_transformer_blocks": "flux", "joint_blocks": "sd3", "self_attn_": "wan", "cross_attn": "wan", "noise_refiner": "z_image",
    "context_refiner": "z_image",
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
    return names_tell(file)


def names_tell(file: LoraFile) -> str | None:
    """By a piece of a name that only one family's modules have."""
    return next((family for telltale, family in _TELLTALES.items() if any(telltale in name for name in file.modules)), None)
