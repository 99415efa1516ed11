"""A tiny model with three sites, and an adapter on it that really does something."""

from __future__ import annotations

import torch
from torch import nn

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.importance import ImportanceStats
from sparsedict.sparsedict_core.site import SiteName

WIDTH, INNER, LAYERS = 16, 20, 3


class TinyModel(nn.Module):
    """Residual blocks of two Linears; the second one is the site."""

    def __init__(self, layers: int = LAYERS) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"inner": nn.Linear(WIDTH, INNER), "to_out": nn.ModuleList([nn.Linear(INNER, WIDTH)])}) for _ in range(layers)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = x + 0.3 * block["to_out"][0](torch.tanh(block["inner"](x)))
        return x


def site_names(layers: int = LAYERS) -> list[SiteName]:
    return [SiteName(f"transformer.blocks.{i}.to_out.0", i) for i in range(layers)]


def make_adapter(model: nn.Module, seed: int = 0, fresh: bool = False, standardise: bool = True, **config) -> SparseAdapter:
    """An adapter; unless fresh, with a random dictionary, as if trained."""
    config = {"atoms": 24, "rank": 6, **config}
    adapter = SparseAdapter.create(model, site_names(len(model.blocks)), AdapterConfig(**config), "transformer", seed=seed)
    if fresh:
        return adapter
    generator = torch.Generator().manual_seed(seed + 100)
    with torch.no_grad():
        for site in adapter.sites.values():
            target = site.dictionary_weight if site.dictionary_basis is None else site.dictionary_basis
            target.copy_(torch.randn(target.shape, generator=generator) * 0.3)
            site.encoder_bias.copy_(torch.randn(site.atoms, generator=generator) * 0.1)
            if site.encoder.running:
                site.threshold.fill_(0.4)
            if standardise:
                site.set_input_statistics(torch.randn(INNER, generator=generator) * 0.2, torch.rand(INNER, generator=generator) + 0.2)
    return adapter


def calibrate(adapter: SparseAdapter, model: nn.Module, x: torch.Tensor, moments: bool = True) -> ImportanceStats:
    stats = ImportanceStats(moments=moments)
    with torch.no_grad(), adapter.attach(model) as attachment, stats.collect(attachment):
        model(x)
    stats.to_importance(adapter)
    return stats
