"""An adapter follows a model whose modules are exchanged after it was attached; what it cannot follow is said, never ignored."""

from __future__ import annotations

import gc
import warnings
import weakref

import pytest
import torch
from core.operations import Operations
from core.test_fused_projections import WIDTH, Block, Model, unbound
from core.tiny_denoisers import DENOISERS, shaken
from torch import nn

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.attached import attached
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.errors import SiteError
from sparsedict.sparsedict_core.site import SiteName
from sparsedict.sparsedict_core.site_discovery import discover_sites


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def random_adapter(model, sites, component="transformer"):
    adapter = SparseAdapter.create(model, sites, AdapterConfig(atoms=6, rank=3, density=0.9), component).requires_grad_(False)
    for site in adapter.sites.values():
        site.dictionary_basis.normal_(0, 0.3)
    return adapter


# -- projections that diffusers fuses and takes apart


def real(name):
    model, inputs = DENOISERS[name][0]()
    shaken(model)
    return model, lambda: model(**inputs, return_dict=False)[0]


@torch.no_grad()
@pytest.mark.parametrize("name", ["flux", "wan", "sd15", "sd3", "hunyuan_dit"])
def test_projections_that_are_fused_and_taken_apart_while_it_is_attached(name):
    model, output = real(name)
    found = discover_sites(model, "out,q,k,v")
    adapter = random_adapter(model, found.sites, found.component)
    base = output()
    with adapter.attach(model) as attachment:
        full = output()
        assert not torch.allclose(full, base, atol=1e-3)
        model.fuse_qkv_projections()
        assert torch.allclose(output(), full, atol=1e-4), "fused after it was attached"
        assert torch.allclose(output(), full, atol=1e-4)
        model.unfuse_qkv_projections()
        assert torch.allclose(output(), full, atol=1e-4), "taken apart again"
        attachment.strength = 0
        assert torch.equal(output(), base)
        attachment.strength = 1
        model.fuse_qkv_projections()
        output()
    assert torch.allclose(output(), base, atol=1e-4), "nothing is left on the fused Linears"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    with adapter.attach(model):
        assert torch.allclose(output(), full, atol=1e-4)
    model.unfuse_qkv_projections()
    with adapter.attach(model):  # some classes leave the fused Linear behind
        assert torch.allclose(output(), full, atol=1e-4)


@torch.no_grad()
def test_sites_of_a_fused_model_are_those_of_the_model_apart():
    model, _ = real("flux")
    apart = discover_sites(model, "all").sites
    model.fuse_qkv_projections()
    assert discover_sites(model, "all").sites == apart


# -- modules that others put in their place


class Replacement(nn.Module):
    """As quantisation libraries make: another class, the same widths, tensors of its own."""

    def __init__(self, linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.packed = nn.Parameter(linear.weight.data.clone(), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x):
        return nn.functional.linear(x, self.packed, self.bias)


class Wrapped(nn.Module):
    """As PEFT makes."""

    def __init__(self, linear):
        super().__init__()
        self.base_layer = linear

    def forward(self, x):
        return self.base_layer(x)


def small():
    model, x = Model(*(Block(unbound, 3 * WIDTH) for _ in range(3))).requires_grad_(False), torch.randn(2, 5, WIDTH)
    return model, x, random_adapter(model, discover_sites(model, "out,q,v", lambda: model(x)).sites)


def replace_linears(model):
    for block in model.blocks:
        block.qkv, block.proj = Replacement(block.qkv), Replacement(block.proj)


def wrap_linears(model):
    for block in model.blocks:
        block.proj = Wrapped(block.proj)


def replace_a_block(model):
    other = Block(unbound, 3 * WIDTH)
    other.load_state_dict(model.blocks[1].state_dict())
    model.blocks[1] = other.requires_grad_(False)


def replace_all_blocks(model):
    model.blocks = nn.ModuleList(model.blocks)
    model.blocks[2].qkv = Replacement(model.blocks[2].qkv)


@torch.no_grad()
@pytest.mark.parametrize("change", [replace_linears, wrap_linears, replace_a_block, replace_all_blocks])
@pytest.mark.parametrize("compiled", [False, True])
def test_modules_that_are_exchanged(change, compiled):
    torch._dynamo.reset()
    model, x, adapter = small()
    base = model(x)
    run = torch.compile(model, backend="eager") if compiled else model
    with adapter.attach(run) as attachment:
        full = run(x)
        gone = [weakref.ref(module) for module in attachment.modules()]
        change(model)
        assert torch.allclose(run(x), full, atol=1e-5) and not torch.allclose(full, base, atol=1e-3)
        assert torch.allclose(run(x), full, atol=1e-5)
    assert torch.allclose(run(x), base, atol=1e-5)
    assert not any(module._forward_hooks for reference in gone if (module := reference()) is not None)


@torch.no_grad()
def test_an_exchange_that_does_not_fit_is_refused_at_the_next_step():
    model, x, adapter = small()
    with adapter.attach(model):
        model(x)
        model.blocks[1].qkv = nn.Linear(WIDTH, 32)
        with pytest.raises(SiteError, match=r"blocks\.1\.qkv\[32:48\] maps 16 channels to 0 in this model"):
            model(x)
        del model.blocks[1].qkv
        with pytest.raises(SiteError, match=r"sites are not in the model, the first is transformer\.blocks\.1\.qkv"):
            model(x)


@torch.no_grad()
@pytest.mark.parametrize("compiled", [False, True])
def test_a_pipelines_adapters_follow_too(compiled):
    torch._dynamo.reset()
    model, x, adapter = small()
    run = torch.compile(model, backend="eager") if compiled else model

    class Pipeline:
        transformer = run

    adapter.attach(Pipeline(), name="a")
    full = run(x)
    replace_linears(model)
    assert torch.allclose(run(x), full, atol=1e-5)
    attached(Pipeline()).remove_all()
    assert not torch.allclose(run(x), full, atol=1e-3)


@torch.no_grad()
def test_strength_and_gains_stay_over_an_exchange():
    model, x, adapter = small()
    with adapter.attach(model, 0.5) as attachment:
        attachment.set_gains({key: (torch.arange(6) < 3).float() for key in adapter.sites})
        full = model(x)
        replace_linears(model)
        assert torch.allclose(model(x), full, atol=1e-5)


def test_the_model_is_not_held():
    model, _, adapter = small()
    adapter.attach(model)
    gone = weakref.ref(model)
    gc.collect()
    gc.disable()
    try:
        del model
        assert gone() is None, "the model waits for the garbage collector"
    finally:
        gc.enable()


@torch.no_grad()
def test_looking_for_changes_costs_no_operation():
    model, x, adapter = small()
    with Operations() as bare:
        model(x)
    with adapter.attach(model, 0.0), Operations() as silent:
        model(x)
    assert silent.counted == bare.counted


# -- Linears that are not called


class Bypassing(Block):
    """Takes a Linear's weight, as fused kernels do."""

    def forward(self, x):
        q, k, v = self.split(self.qkv(x))
        attended = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + nn.functional.linear(attended, self.proj.weight, self.proj.bias)


@torch.no_grad()
def test_a_site_that_no_call_reaches_is_named_once():
    model, x = Model(Block(unbound, 3 * WIDTH), Bypassing(unbound, 3 * WIDTH)), torch.randn(2, 5, WIDTH)
    adapter = random_adapter(model, [SiteName(f"transformer.blocks.{i}.proj", i) for i in (0, 1)])
    with adapter.attach(model), pytest.warns(UserWarning, match=r"1 of 2 sites of the adapter were not called in this step, the first is transformer.blocks.1.proj"):
        model(x)
    with adapter.attach(model):
        with pytest.warns(UserWarning, match="not called"):
            model(x)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model(x)


@torch.no_grad()
@pytest.mark.parametrize("part", ["model", "blocks", "forward"])
def test_sites_in_compiled_code_count_as_called(part):
    torch._dynamo.reset()
    model, x, adapter = small()
    base = model(x)
    if part == "model":
        model.compile(backend="eager")
    for block in model.blocks:
        if part == "blocks":
            block.compile(backend="eager")
        elif part == "forward":
            block.forward = torch.compile(block.forward, backend="eager")
    with adapter.attach(model), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not torch.allclose(model(x), base, atol=1e-3)
        frames = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        model(x)
        model(x)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == frames, "compiled anew"
    assert torch.allclose(model(x), base, atol=1e-5)
