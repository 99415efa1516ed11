"""Writes tests/data/version-N.safetensors, a small file of the present format, and golden-output.safetensors with what it must give.

    python tests/data/make_golden.py        after `format_version` has risen; the older files stay as they were written

Every value is a short binary fraction, so sums are exact in any order and the outputs are the same bits on every machine.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.compose import compose
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.file_format import save
from sparsedict.sparsedict_core.file_metadata import FORMAT_VERSION
from sparsedict.sparsedict_core.prune import prune
from sparsedict.sparsedict_core.selection import Selection, select
from sparsedict.sparsedict_core.site import SiteName

FOLDER = Path(__file__).parent
OUTPUT = FOLDER / "golden-output.safetensors"
WIDTHS = (8, 6)
SITES = [SiteName("transformer.blocks.0.image", 0, "image"), SiteName("transformer.blocks.0.text", 0, "text"), SiteName("transformer.blocks.1.single", 1)]
STRENGTH = 0.5


class GoldenModel(nn.Module):
    """Three Linears beside each other: what one adds does not go through another."""

    def __init__(self, weights: Tensor) -> None:
        """`weights` (3, 6, 8)"""
        super().__init__()
        self.blocks = nn.ModuleList([nn.ModuleDict({"image": linear(weights[0]), "text": linear(weights[1])}), nn.ModuleDict({"single": linear(weights[2])})])

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """(..., 8) → (3, ..., 6)"""
        return torch.stack([self.blocks[0]["image"](x), self.blocks[0]["text"](x), self.blocks[1]["single"](x)])


def linear(weight: Tensor) -> nn.Linear:
    made = nn.Linear(*reversed(weight.shape), bias=False)
    made.weight.data = weight
    return made


def halves(generator: torch.Generator, *shape: int, most: int = 2) -> Tensor:
    """Multiples of 1/2 up to `most`/2."""
    return torch.randint(-most, most + 1, shape, generator=generator) / 2


def member(seed: int, **config: object) -> SparseAdapter:
    generator = torch.Generator().manual_seed(seed)
    metadata = {"base_family": "golden", "base_fingerprint": "0123456789abcdef", "trigger_words": ["zorp"], "title": "Golden", "training": {"steps": 3}}
    made = SparseAdapter.create(GoldenModel(torch.zeros(3, 6, 8)), SITES, AdapterConfig(**config), "transformer", metadata=metadata)  # type: ignore[arg-type]
    for site in made.sites.values():
        for parameter in site.parameters():
            parameter.data = halves(generator, *parameter.shape)
        if site.encoder_basis is not None:
            site.encoder_mean, site.encoder_scale = halves(generator, site.d_in), 2.0 ** torch.randint(-1, 2, (site.d_in,), generator=generator)
        site.importance = torch.arange(site.atoms, 0, -1) / 8
        site.firing = torch.arange(site.atoms) / 16
        site.moments = torch.eye(site.atoms) / 4
    return made


def make_adapter() -> SparseAdapter:
    """Two members: one factored and pruned, with an empty site and ids that have holes; one dense and linear."""
    cat = member(1, atoms=12, rank=2)
    cat = prune(cat, select(cat, Selection(atoms="L0.image[0,3-7,9,11],L1")))
    return compose([("cat", cat, 1.0), ("style", member(2, encoder="linear", atoms=4, rank=None), -0.5)])


def make_output(adapter: SparseAdapter) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x, weights = halves(generator, 2, 3, 8, most=4), halves(generator, 3, 6, 8)
    model = GoldenModel(weights)
    with adapter.attach(model, STRENGTH):
        return {"x": x, "weights": weights, "output": model(x), "base": GoldenModel(weights)(x)}


if __name__ == "__main__":
    golden = make_adapter()
    save(golden, FOLDER / f"version-{FORMAT_VERSION}.safetensors", overwrite=True)
    save_file(make_output(golden), OUTPUT)
