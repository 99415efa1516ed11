"""Calls the pack's nodes in this process as the host does, and makes what they are fed with. Their fixtures are in conftest.py."""

import tiny_models
import torch

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.config import AdapterConfig

SELECT = {
    "mode": "share", "share": 0.25, "top": 5, "threshold": 0.5, "atoms": "", "order": "importance", "per_site": False, "layers": "", "invert": False, "refit": False
}  # fmt: skip


def make_value(model, name="zorp", seed=0, moments=True):
    """A SPARSE_DICT with importance, moments and trigger words."""
    from sparsedict.comfyui_host.sites import alias_tree, host_sites
    from sparsedict.nodes.socket import SparseDict

    sites = host_sites(model)
    config = AdapterConfig(atoms=12, rank=4, encoder="quantile")
    metadata = {"base_family": "sd3", "title": name, "trigger_words": [name], "training": {"steps": "5"}}
    adapter = SparseAdapter.create(alias_tree(sites), sites.names, config, "transformer", seed, metadata)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for site in adapter.sites.values():
            site.dictionary_basis.copy_(torch.randn(site.dictionary_basis.shape, generator=generator) * 0.3)
            site.threshold.fill_(0.5)
            site.importance = torch.rand(site.atoms, generator=generator) + 0.01
            c = torch.randn(64, site.atoms, generator=generator)
            site.moments = c.T @ c / 64 if moments else None
    return SparseDict(adapter.requires_grad_(False), name)


def dicts(values):
    """The inputs of Compose as the host hands them over: in one that grows, or under dotted names where there is none."""
    from comfy_api.latest import io

    named = {f"dict_{number}": value for number, value in values.items()}
    return {"dicts": named} if hasattr(io, "Autogrow") else {f"dicts.{name}": value for name, value in named.items()}


def run(nodes, node_id, **inputs):
    with torch.inference_mode():  # as the host does
        return nodes[node_id].execute(**inputs).args


def sample(model):
    return tiny_models.sample(model, "sd3", guidance=1.0)
