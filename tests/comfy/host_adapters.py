"""Adapters on the host's tiny models, which stay loaded for as long as a test file runs. The fixture `patcher` is one such model."""

import tiny_models
import torch

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.config import AdapterConfig

_LOADED: dict = {}


def loaded(family):
    """One model a family; every test must leave it as it was."""
    if family not in _LOADED:
        _LOADED[family] = tiny_models.load(family)
    return _LOADED[family]


def unload():
    _LOADED.clear()


def make_adapter(patcher, atoms=12, rank=4, seed=0, **metadata) -> SparseAdapter:
    """Random atoms that really change the picture."""
    from sparsedict.comfyui_host.sites import alias_tree, host_sites

    sites = host_sites(patcher)
    config = AdapterConfig(atoms=atoms, rank=rank, encoder="quantile")
    metadata = {"base_family": sites.family, "title": "test", **metadata}
    adapter = SparseAdapter.create(alias_tree(sites), sites.names, config, sites.component, seed, metadata)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for site in adapter.sites.values():
            site.dictionary_basis.copy_(torch.randn(site.dictionary_basis.shape, generator=generator) * 0.3)
            site.threshold.fill_(0.5)
            site.importance = torch.rand(site.atoms, generator=generator) + 0.01
    return adapter.requires_grad_(False)
