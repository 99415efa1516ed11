"""What a LoRA's file holds for text encoders: a pipeline's own loader puts it there, and the adapter that it came with turns it.

Such a part is a LoRA like any other to the pipeline; here its scale follows the adapter's strength, and it goes when the adapter goes.
"""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from .errors import SparseDictError, first_line

if TYPE_CHECKING:
    from .adapter import SparseAdapter
    from .attachment import Attachment

#: Names of a text encoder's modules in a LoRA file begin with one of these.
_TEXT = ("lora_te", "text_encoder", "text_encoders.", "lora_prior_te", "clip_l.", "clip_g.", "t5xxl.", "t5.", "conditioner.", "te.", "te1.", "te2.")


def is_text_encoder(name: str) -> bool:
    """Whether a module's or tensor's name in a LoRA file belongs to a text encoder."""
    return name.startswith(_TEXT)


def text_encoder_tensors(adapter: SparseAdapter) -> dict[str, Tensor]:
    """What the adapter carries for text encoders, under the names of the LoRA that it came from."""
    return {name: tensor for name, tensor in adapter.aside.items() if is_text_encoder(name)}


def attach_text_encoders(pipeline: Any, attachment: Attachment, name: str) -> None:
    """Put what the attached adapter carries for text encoders onto the pipeline's, to be turned by `attachment` from now on.

    Warns of layers that are not there. Raises SparseDictError where the pipeline's loader refuses the names.
    """
    tensors = text_encoder_tensors(attachment.adapter)
    if not tensors:
        return
    encoders = [part for key, part in pipeline.components.items() if key.startswith("text_encoder") and isinstance(part, nn.Module)]
    active = {layer: list(layer.active_adapters) for encoder in encoders for layer in _layers(encoder)}
    # A module's name may hold no dot; the number keeps two adapters of one name apart.
    own = f"sparsedict_{re.sub(r'[^0-9A-Za-z]', '_', name)}_{id(attachment):x}"
    try:
        with _quiet():
            pipeline.load_lora_weights({key: tensor.clone() for key, tensor in tensors.items()}, adapter_name=own)
    except (AttributeError, ValueError, KeyError, IndexError, TypeError, RuntimeError) as error:
        raise SparseDictError(
            f"{name!r} holds {len(tensors)} tensors for text encoders, which a {type(pipeline).__name__} cannot load ({first_line(error)}); "
            "attach it to the denoiser to go without them."
        ) from error
    for layer, names in active.items():  # the loader has made all others silent
        layer.set_adapter([*names, *([own] if own in layer.lora_A else [])])
    layers = {encoder: [layer for layer in _layers(encoder) if own in layer.lora_A] for encoder in encoders}
    hooks = [encoder.register_forward_pre_hook(_Turn(attachment, own, found)) for encoder, found in layers.items() if found]

    def remove() -> None:
        for hook in hooks:
            hook.remove()
        for encoder, found in layers.items():
            if found:
                encoder.delete_adapter(own)

    attachment.companions.append(remove)
    wanted, there = sum(tensor.ndim > 1 for tensor in tensors.values()) // 2, sum(map(len, layers.values()))
    if there < wanted:
        warnings.warn(f"{name!r} holds parts for {wanted} layers of text encoders, of which a {type(pipeline).__name__} has loaded {there}; its words may not do all.", stacklevel=4)


class _Turn:
    """Before a text encoder computes, its part of the LoRA gets the adapter's strength as it is now."""

    def __init__(self, attachment: Attachment, name: str, layers: list[Any]) -> None:
        self.attachment, self.name, self.layers = attachment, name, layers

    def __call__(self, module: nn.Module, arguments: Any) -> None:
        # Without an atom there is the bare base.
        acts = self.attachment.enabled and any(bool(gains.any()) for gains in self.attachment.gains.values())
        strength = self.attachment.strength if acts else 0.0
        for layer in self.layers:
            layer.set_scale(self.name, strength)
            if self.name not in layer.active_adapters:  # a LoRA that was loaded since has made it silent
                layer.set_adapter([*layer.active_adapters, self.name])


def _layers(model: nn.Module) -> Iterator[Any]:
    """peft's layers."""
    return (module for module in model.modules() if isinstance(getattr(module, "lora_A", None), Mapping | nn.ModuleDict))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The loaders warn of what is as it should be: nothing for the denoiser, and no base weights in a LoRA."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # a LoRA of the user's own is there too
            yield
    finally:
        for logger, level in zip(loggers, before):
            logger.setLevel(level)
