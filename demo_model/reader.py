"""The attribute reader: names the subject, style, size, place, ground and pattern of a scene with one drawing.

Trained on renders and on the codec's output; used by the measures, never by the base's training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .attributes import ATTRIBUTES


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class AttributeReader(nn.Module):
    """Images (B, 3, h, w) in [-1, 1] → logits per attribute."""

    def __init__(self, attributes: dict[str, tuple[str, ...]] = ATTRIBUTES) -> None:
        super().__init__()
        self.attributes = attributes
        self.body = nn.Sequential(
            _block(5, 32, 2), _block(32, 64, 2), _block(64, 64, 1), _block(64, 128, 2), _block(128, 128, 1), _block(128, 256, 2), _block(256, 256, 1)
        )
        self.heads = nn.ModuleDict({name: nn.Linear(512, len(values)) for name, values in attributes.items()})

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) → (B, 512): the mean and the maximum over the picture."""
        b, _, h, w = images.shape
        y = torch.linspace(-1, 1, h, device=images.device, dtype=images.dtype).view(1, 1, h, 1).expand(b, 1, h, w)
        x = torch.linspace(-1, 1, w, device=images.device, dtype=images.dtype).view(1, 1, 1, w).expand(b, 1, h, w)
        maps = self.body(torch.cat([images, x, y], 1))
        return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.features(images)
        return {name: head(features) for name, head in self.heads.items()}

    @torch.no_grad()
    def read(self, images: Tensor) -> list[dict[str, str]]:
        """The most likely value of each attribute, one dict an image."""
        logits = self(images.float())
        columns = {name: [self.attributes[name][i] for i in values.argmax(1).tolist()] for name, values in logits.items()}
        return [{name: columns[name][row] for name in columns} for row in range(len(images))]
