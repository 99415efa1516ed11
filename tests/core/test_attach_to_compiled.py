"""A model that was compiled and run follows what is attached and detached afterwards."""

from __future__ import annotations

import types

import pytest
import torch
from core.tiny_adapters import make_adapter
from torch import nn


@pytest.fixture(autouse=True)
def _forget():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def regional(model, **how):
    for block in model.blocks:
        block["to_out"][0].compile(**how)
    return model


@pytest.mark.parametrize("compiling", [torch.compile, regional], ids=["whole", "regional"])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@torch.no_grad()
def test_attach_change_and_detach_are_followed(model, x, compiling, backend):
    one, two = (make_adapter(model, seed).requires_grad_(False) for seed in (1, 2))
    base = model(x)
    wanted = {}
    for name, adapter in (("one", one), ("two", two)):
        with adapter.attach(model):
            wanted[name] = model(x)
    with one.attach(model, 0.5) as half:
        wanted["half"] = model(x)
        half.set_gains({key: (torch.arange(24) < 9).float() for key in one.sites})
        wanted["gains"] = model(x)
    compiled = compiling(model, backend=backend)
    assert torch.allclose(compiled(x), base, atol=1e-5)
    for adapter, name in ((one, "one"), (two, "two"), (one, "one")):
        with adapter.attach(model):
            assert torch.allclose(compiled(x), wanted[name], atol=1e-5), f"{name} was ignored"
        assert torch.allclose(compiled(x), base, atol=1e-5), f"{name} stayed"
    with one.attach(model) as attachment:
        compiled(x)
        attachment.strength = 0.5
        assert torch.allclose(compiled(x), wanted["half"], atol=1e-5)
        attachment.set_gains({key: (torch.arange(24) < 9).float() for key in one.sites})
        assert torch.allclose(compiled(x), wanted["gains"], atol=1e-5)
        with two.attach(model):
            assert not torch.allclose(compiled(x), wanted["gains"], atol=1e-3)
        assert torch.allclose(compiled(x), wanted["gains"], atol=1e-5)
        attachment.enabled = False
        assert torch.allclose(compiled(x), base, atol=1e-5)


@torch.no_grad()
def test_what_was_compiled_for_the_base_is_used_again(model, x):
    graphs = []
    compiled = torch.compile(model, backend=lambda graph, inputs: graphs.append(graph) or graph.forward, fullgraph=True)
    adapter = make_adapter(model).requires_grad_(False)
    for _ in range(3):
        compiled(x)
        with adapter.attach(model):
            compiled(x)
    assert len(graphs) == 2


@torch.no_grad()
def test_a_forward_of_somebody_else_is_kept(model, x):
    """Hosts put a forward of their own on a Linear, before or after an adapter is attached."""
    linear, adapter = model.blocks[0]["to_out"][0], make_adapter(model).requires_grad_(False)
    with adapter.attach(model):
        full = model(x)
    assert "forward" not in linear.__dict__

    def theirs(self, x):
        return nn.Linear.forward(self, x)

    linear.forward = mine = types.MethodType(theirs, linear)
    compiled = torch.compile(model, backend="eager")
    base = compiled(x)
    with adapter.attach(model):
        assert torch.equal(model(x), full) and torch.allclose(compiled(x), full, atol=1e-5)
    assert linear.__dict__["forward"] is mine and torch.allclose(compiled(x), base, atol=1e-5)
    del linear.forward
    with adapter.attach(model):
        linear.forward = mine
        assert torch.equal(model(x), full)
    assert linear.__dict__["forward"] is mine
    assert torch.equal(model(x), base)
