"""Adapters with random atoms on a stack of Linears: files to inspect, prune and merge without any model."""

import torch

from sparsedict.sparsedict_core import AdapterConfig, SiteName, SparseAdapter


class Toy(torch.nn.Module):
    """A stack of Linears under the names that the sites have: enough of a model to hold an adapter."""

    def __init__(self, layers=3, width=24):
        super().__init__()
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(layers))


def toy_adapter(seed=0, atoms=16, layers=3, width=24, family="toy"):
    """Random atoms with importance, firing rates and moments, as after a training run."""
    names = [SiteName(f"blocks.{layer}", layer) for layer in range(layers)]
    config = AdapterConfig(atoms=atoms, rank=4)
    adapter = SparseAdapter.create(Toy(layers, width), names, config, seed=seed, metadata={"base_family": family, "trigger_words": ["zorp"]})
    generator = torch.Generator().manual_seed(seed)
    for site in adapter.sites.values():
        site.dictionary_basis.data = torch.randn(site.dictionary_basis.shape, generator=generator)
        fired = torch.relu(torch.randn(200, atoms, generator=generator)) * torch.rand(atoms, generator=generator)
        site.moments = fired.T @ fired / len(fired)
        site.firing = (fired > 0).float().mean(0)
        site.importance = fired.mean(0) * site.dictionary_norms()
    return adapter
