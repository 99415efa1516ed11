"""A model of a few Linears for the soak, and adapters on it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...sparsedict_core.adapter import SparseAdapter
from ...sparsedict_core.config import AdapterConfig
from ...sparsedict_core.site import SiteName


class StackModel(nn.Module):
    """Residual Linears, each a site."""

    def __init__(self, layers: int = 3, width: int = 8) -> None:
        super().__init__()
        self.width = width
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.b = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → the same"""
        for layer in self.b:
            x = x + 0.1 * layer(x)
        return x


def stack_adapter(seed: int, atoms: int = 12) -> SparseAdapter:
    """Random atoms with importance, rates and moments, as after a training."""
    model = StackModel()
    names = [SiteName(f"b.{layer}", layer) for layer in range(len(model.b))]
    metadata = {"base_family": "stack", "title": "soak", "trigger_words": ["zorp"], "training": {"steps": 3}}
    made = SparseAdapter.create(model, names, AdapterConfig(atoms=atoms, rank=4), seed=seed, metadata=metadata)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for site in made.sites.values():
            assert site.dictionary_basis is not None
            site.dictionary_basis.copy_(torch.randn(site.dictionary_basis.shape, generator=generator))
            fired = torch.relu(torch.randn(50, atoms, generator=generator))
            site.moments, site.importance, site.firing = fired.T @ fired / 50, fired.mean(0), (fired > 0).float().mean(0)
            site.set_input_statistics(torch.randn(model.width, generator=generator), torch.rand(model.width, generator=generator) + 0.5)
    return made.requires_grad_(False)
