"""Files of adapters: compared, and changed as nobody should."""

from __future__ import annotations

import json

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sparsedict.sparsedict_core.tensor_table import site_tensors

KEY = "transformer.blocks.0.to_out.0"


def tensors_of(adapter):
    return {f"{key}.{row.name}": tensor for key, site in adapter.sites.items() for row, tensor in site_tensors(site)}


def assert_same(one, two):
    a, b = tensors_of(one), tensors_of(two)
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]), name


def read_raw(path):
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def rewrite(path, change_tensors=None, change_meta=None):
    meta = read_raw(path)
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    if change_tensors:
        change_tensors(tensors)
    if change_meta:
        change_meta(meta)
    save_file(tensors, path, metadata=meta)


def in_config(**changes):
    return lambda meta: meta.update(config=json.dumps({**json.loads(meta["config"]), **changes}))
