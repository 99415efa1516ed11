"""Calls the pack's nodes in this process as the host does, and makes what they are fed with. Their fixtures are in conftest.py."""

import asyncio
from unittest import mock

import tiny_models
import torch
from host_adapters import make_adapter

SELECT = {
    "mode": "share", "share": 0.25, "top": 5, "threshold": 0.5, "atoms": "", "order": "importance", "per_site": False, "layers": "", "invert": False, "refit": False
}  # fmt: skip


def make_value(model, name="zorp", seed=0, moments=True):
    """A SPARSE_DICT with importance, moments and trigger words."""
    from sparsedict.nodes.socket import SparseDict

    adapter = make_adapter(model, seed=seed, title=name, trigger_words=[name], training={"steps": "5"})
    if moments:
        generator = torch.Generator().manual_seed(seed + 1)
        for site in adapter.sites.values():
            c = torch.randn(64, site.atoms, generator=generator)
            site.moments = c.T @ c / 64
    return SparseDict(adapter, name)


def dicts(values):
    """The inputs of Compose as the host hands them over: in one that grows, or under dotted names where there is none."""
    from comfy_api.latest import io

    named = {f"dict_{number}": value for number, value in values.items()}
    return {"dicts": named} if hasattr(io, "Autogrow") else {f"dicts.{name}": value for name, value in named.items()}


def run(nodes, node_id, **inputs):
    with torch.inference_mode():  # as the host does
        return nodes[node_id].execute(**inputs).args


def fingerprint(node, **inputs):
    """What the host itself finds for its cache; an input `["9", 0]` is a link. NaN, which equals nothing, where the node raises an error."""
    from comfy_execution.graph import DynamicPrompt
    from execution import IsChangedCache

    import nodes as host_nodes

    name = node.GET_SCHEMA().node_id
    with mock.patch.dict(host_nodes.NODE_CLASS_MAPPINGS, {name: node}):
        prompt = DynamicPrompt({"1": {"class_type": name, "inputs": inputs}})
        return asyncio.run(IsChangedCache("prompt", prompt, None).get("1"))


def sample(model):
    return tiny_models.sample(model, "sd3", guidance=1.0)
