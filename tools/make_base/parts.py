"""The base's parts, and how they are stored while they are in training."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialised
from torch import nn

from ...demo_model.architecture import build_transformer
from ...demo_model.codec import PatchCodec
from ...demo_model.text_encoder import WordEncoder
from ...sparsedict_core.atomic_write import write_atomically


def make_model() -> nn.ModuleList:
    """Transformer and word encoder, randomly initialised."""
    return nn.ModuleList([build_transformer(), WordEncoder()])


def load_codec(work: Path, device: torch.device | str = "cpu") -> PatchCodec:
    """The codec as far as it is trained."""
    codec = PatchCodec()
    codec.load_state_dict(load_file(str(work / "codec.safetensors")))
    return codec.eval().requires_grad_(False).to(device)


def load_base(work: Path, device: torch.device | str = "cpu") -> nn.ModuleList:
    """The averaged weights of the newest checkpoint."""
    model, stored = make_model(), load_file(str(work / "state.safetensors"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(stored[f"ema.{name}"])
    return model.eval().requires_grad_(False).to(device)


def store(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write a file whole or not at all."""
    write_atomically(path, serialised({key: value.detach().contiguous().cpu() for key, value in tensors.items()}))
