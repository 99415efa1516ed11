"""Where in the base model a LoRA's modules belong, as far as the names alone say it.

A trainer names a module by its path in the model, with dots or with underscores and after a word of its own; so the names are made from
the model at hand and looked up. Trainers that know the model by other names than diffusers are for `diffusers_names`, or for the host.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

#: What stands before a path, with dots and with underscores.
_DOTTED = (
    "", "transformer.", "unet.", "diffusion_model.", "model.diffusion_model.", "base_model.model.", "transformer.base_model.model.", "unet.base_model.model.",
)  # fmt: skip
_UNDERSCORED = ("lora_unet_", "lora_transformer_", "lycoris_", "lora_")


class Part(NamedTuple):
    """A LoRA module, or some rows of its output, at a path of the base; `rows` index its d_out, None: all of them in order."""

    module: str
    path: str
    rows: tuple[int, ...] | None = None


def named_by_path(names: Iterable[str], paths: Iterable[str]) -> list[Part]:
    """The LoRA modules whose name is one of the base's `paths` (without its component) in some spelling."""
    known: dict[str, str] = {}
    for path in paths:
        flat = path.replace(".", "_")
        known.update({prefix + path: path for prefix in _DOTTED} | {prefix + flat: path for prefix in _UNDERSCORED})
    return [Part(name, known[name]) for name in names if name in known]
