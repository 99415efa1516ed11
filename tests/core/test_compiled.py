"""Compiled and captured: one graph, the same numbers, and no new compilation when strength or gains change."""

from __future__ import annotations

import pytest
import torch
from core.operations import Operations
from core.tiny_adapters import TinyModel, make_adapter
from torch import nn

from sparsedict.sparsedict_core.compose import compose
from sparsedict.sparsedict_core.encoders import encoder_names


@pytest.fixture(autouse=True)
def _forget():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Counter:
    """A backend of torch.compile that runs what it is given and counts how often it is asked."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


@pytest.mark.parametrize("encoder", encoder_names())
@torch.no_grad()
def test_one_graph_that_follows_strength_and_gains(model, x, encoder):
    adapter = make_adapter(model, encoder=encoder).requires_grad_(False)
    gains = {key: torch.rand(24) * (torch.arange(24) % 3 == 0) for key in adapter.sites}
    base = model(x)
    with adapter.attach(model) as attachment:
        counter = Counter()
        compiled = torch.compile(model, backend=counter, fullgraph=True)
        for strength, wanted in ((1.0, None), (0.5, None), (0.7, gains), (1.0, {key: torch.zeros(24) for key in gains}), (0.0, None), (1.0, gains)):
            attachment.strength = strength
            attachment.set_gains(wanted)
            found = compiled(x)
            assert torch.allclose(found, model(x), atol=1e-5)
            if strength == 0 or (wanted is not None and not any(g.any() for g in wanted.values())):
                assert torch.equal(found, base)
        assert counter.graphs == 1


@torch.no_grad()
def test_no_graph_break_with_members(model, x):
    parts = [make_adapter(model, seed).requires_grad_(False) for seed in (1, 2)]
    with compose([("cat", parts[0], 1.0), ("style", parts[1], 0.5)]).attach(model) as attachment:
        told = torch._dynamo.explain(model)(x)
        assert told.graph_count == 1 and told.graph_break_count == 0, told.break_reasons
        torch._dynamo.reset()
        counter = Counter()
        compiled = torch.compile(model, backend=counter, fullgraph=True)
        for name, strength in (("cat", 1.0), ("style", 0.0), ("cat", 0.3)):
            attachment.member_strengths[name] = strength
            assert torch.allclose(compiled(x), model(x), atol=1e-5)
        assert counter.graphs == 1


# What a graph cannot capture: reading a value on the CPU, and shapes that depend on values.
UNCAPTURABLE = {"_local_scalar_dense", "nonzero", "item", "index", "masked_select"}


@pytest.mark.parametrize("capturable", [True, False])
@torch.no_grad()
def test_a_call_can_be_captured(model, x, capturable):
    adapter = make_adapter(model).requires_grad_(False)
    with adapter.attach(model, 0.6) as attachment:
        attachment.set_gains({next(iter(adapter.sites)): (torch.arange(24) % 2).float()})
        plain = model(x)  # also the warm-up that a capture needs
        attachment.capturable = capturable
        with Operations() as seen:
            assert torch.allclose(model(x), plain, atol=1e-5)
        names = {op.overloadpacket.__name__ for op in seen.counted}
        assert "addmm" in names and not names & UNCAPTURABLE


@torch.no_grad()
def test_the_scale_that_graphs_read_is_written_to_not_replaced(model):
    adapter = make_adapter(model).requires_grad_(False)
    with torch.inference_mode():
        attachment = adapter.attach(model)
    before = {key: prepared.scale.data_ptr() for key, prepared in attachment._prepared.items()}
    attachment.strength = 0.5
    attachment.set_gains({key: torch.full((24,), 2.0) for key in adapter.sites})
    for key, prepared in attachment._prepared.items():
        assert prepared.scale.data_ptr() == before[key] and prepared.scale.eq(1.0).all()
    attachment.detach()


@torch.no_grad()
def test_in_place_only_on_what_nobody_else_holds(model, x):
    """A hook that was there first keeps the output it was shown; a Linear that returns its input leaves that as it was."""
    adapter = make_adapter(model).requires_grad_(False)
    shown = []
    linear = model.blocks[0]["to_out"][0]
    handle = linear.register_forward_hook(lambda module, args, output: shown.append((output, output.clone())))
    with adapter.attach(model):
        full = model(x)
    handle.remove()
    assert torch.equal(*shown[0])
    with adapter.attach(model), make_adapter(model, 1).attach(model, strength=0) as watching:
        assert torch.equal(model(x), full)
        del watching

    class Same(nn.Linear):
        def forward(self, x):
            return x

    square = TinyModel(1)
    square.blocks[0]["to_out"][0] = Same(20, 20)
    from sparsedict.sparsedict_core.adapter import SparseAdapter
    from sparsedict.sparsedict_core.site import SiteName

    site = SiteName("blocks.0.to_out.0", 0)
    own = SparseAdapter.create(square, [site]).requires_grad_(False)
    next(iter(own.sites.values())).dictionary_basis.fill_(1.0)
    data = torch.randn(4, 20)
    kept = data.clone()
    with own.attach(square):
        assert not torch.equal(square.blocks[0]["to_out"][0](data), data)
    assert torch.equal(data, kept)


@torch.no_grad()
def test_a_tap_keeps_the_output_it_was_shown(model, x):
    """Also where another adapter on the same Linears adds to what the tapped one hands on."""
    watched, other, kept = make_adapter(model, 1).requires_grad_(False), make_adapter(model, 2).requires_grad_(False), []
    with watched.attach(model, strength=0) as attachment, other.attach(model), attachment.tap(lambda *args: kept.append((args[5], args[5].clone()))):
        model(x)
    assert kept and all(torch.equal(output, copy) for output, copy in kept)
