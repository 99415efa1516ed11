"""What a dictionary that was a LoRA carries along beside its atoms: text encoders' parts and norms, put in place by the host's own LoRA loader."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.gains import alive
from ..sparsedict_core.shown_text import shown
from ..sparsedict_core.text_encoders import is_text_encoder, text_encoder_tensors


def rest_on_model(patcher: Any, adapter: SparseAdapter, strength: float, gains: Mapping[str, Tensor] | None) -> Any:
    """A clone of the MODEL with what is neither the dictionary's nor the text encoders'. Nothing is added where no atom is left."""
    import comfy.sd

    rest = {key: tensor for key, tensor in adapter.aside.items() if not is_text_encoder(key)}
    if not rest or not _acts(adapter, strength, gains):
        return patcher.clone()
    return comfy.sd.load_lora_for_models(patcher, None, rest, strength, 0.0)[0]


def rest_on_clip(clip: Any, adapter: SparseAdapter, strength: float, gains: Mapping[str, Tensor] | None, name: str) -> Any:
    """A clone of the CLIP with the text encoders' part; the CLIP itself where there is nothing for it. A part without a CLIP is told in the log."""
    import comfy.sd

    part = text_encoder_tensors(adapter)
    if not part or not _acts(adapter, strength, gains):
        return clip
    if clip is None:
        logging.warning(f"SparseDict: {shown(name)} holds {len(part)} tensors for text encoders, which do nothing without a CLIP; connect one to the node that applies it.")
        return None
    return comfy.sd.load_lora_for_models(None, clip, part, 0.0, strength)[1]


def _acts(adapter: SparseAdapter, strength: float, gains: Mapping[str, Tensor] | None) -> bool:
    """Strength 0 and no atom are the bare base."""
    return strength != 0 and any(bool(mask.any()) for mask in alive(adapter, gains).values())
