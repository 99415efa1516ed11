"""What all nodes' schemas share, and values that go from pictures to the host."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from .socket import CATEGORY


def schema(node_id: str, display_name: str, description: str, aliases: list[str], **more: Any) -> io.Schema:
    """A Schema in the pack's category; search aliases where the host knows them."""
    fields = {field.name for field in dataclasses.fields(io.Schema)}
    if "search_aliases" in fields:
        more["search_aliases"] = aliases
    return io.Schema(node_id=node_id, display_name=display_name, category=CATEGORY, description=description, **more)


def image_tensor(picture: Any) -> Tensor:
    """PIL → the host's IMAGE (1, H, W, 3) in [0, 1]."""
    import numpy as np

    return torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255)[None]


def stacked(pictures: list[Any]) -> Any:
    """PIL images below one another on white."""
    from PIL import Image

    width = max(picture.width for picture in pictures)
    sheet = Image.new("RGB", (width, sum(picture.height for picture in pictures)), "white")
    top = 0
    for picture in pictures:
        sheet.paste(picture, ((width - picture.width) // 2, top))
        top += picture.height
    return sheet
