"""Sites seen at work: the tables of `families/` are the oracle, and models that nobody wrote down are trained and pruned."""

from __future__ import annotations

import pytest
import torch
from core.tiny_denoisers import DENOISERS, output_of, shaken
from torch import nn

from sparsedict.sparsedict_core import data_flow
from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.data_flow import follow, follow_a_run
from sparsedict.sparsedict_core.errors import SiteError
from sparsedict.sparsedict_core.file_format import load, save
from sparsedict.sparsedict_core.site_discovery import discover_sites, name_linears


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


# -- families that are written down -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sdxl", "sd35", "flux", "pixart", "sana", "lumina2", "wan", "qwen_image", "hunyuan_dit"])
def test_what_is_seen_is_what_is_written_down(name):
    model, inputs = DENOISERS[name][0]()
    hooks = [dict(module._forward_hooks) for module in model.modules()]
    written = [site.path.partition(".")[2] for site in discover_sites(model).sites]
    seen = follow(model.eval(), (), inputs).outputs
    assert {output.path for output in seen if output.read} == set(written)
    assert [output.path for output in seen if not output.read] == (["transformer_blocks.2.attn.to_add_out"] if name == "qwen_image" else [])
    assert [dict(module._forward_hooks) for module in model.modules()] == hooks


# -- how it decides -----------------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, written_out=False, closed=True):
        super().__init__()
        self.qkv, self.proj, self.up, self.down = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.written_out, self.closed = written_out, closed

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        if self.written_out:
            attended = torch.softmax(torch.bmm(q, k.mT), -1) @ v
        else:
            attended = nn.functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        x = x + (self.proj(attended.contiguous()) if self.closed else attended)
        return x + self.down(torch.relu(self.up(x)))


class Model(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x, stop=None):
        if stop is not None and float(x.sum()) == stop:  # a shape that depends on values
            return x
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize("written_out", [False, True])
@pytest.mark.parametrize("stop", [None, 1e9])
def test_the_first_linear_after_an_attention(written_out, stop):
    model = Model(Block(written_out), Block(written_out))
    x = torch.randn(2, 5, 8)
    found = follow(model, (x, stop)).outputs
    assert [(output.path, output.read) for output in found] == [("blocks.0.proj", True), ("blocks.1.proj", True)]


def test_nothing_is_computed_where_shapes_tell():
    with torch.device("meta"):
        model = Model(Block(), Block())
    assert len(follow(model, (torch.randn(2, 5, 8, device="meta"),)).outputs) == 2


def test_an_attention_without_an_output_is_no_site():
    model = Model(Block(), Block(closed=False))
    assert [output.path for output in follow(model, (torch.randn(2, 5, 8),)).outputs] == ["blocks.0.proj"]
    with pytest.raises(SiteError, match=r"no Linear that closes an attention was seen in a step of this Model"):
        alone = Model(Block(closed=False))
        discover_sites(alone, run=lambda: alone(torch.randn(2, 5, 8)))


def test_a_run_that_never_calls_the_model():
    model = Model(Block(), Block(), Block())
    assert follow_a_run(model, lambda: None) == ([], {}) and all(not module._forward_pre_hooks for module in model.modules())
    with pytest.raises(SiteError, match="no sites are known for a Model before it has made a step"):
        discover_sites(Model(Block(), Block()))


def test_compiled_adapted_and_quantised_linears_are_seen():
    torch._dynamo.reset()
    model = Model(Block(), Block())
    x = torch.randn(2, 5, 8)
    discovered = discover_sites(model, run=lambda: model(x))
    adapter = SparseAdapter.create(model, discovered.sites, AdapterConfig(atoms=4, rank=2), "transformer")
    compiled = torch.compile(model, backend="eager")

    class Wrapped(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.in_features, self.out_features = inner, 8, 8

        def forward(self, x):
            return self.inner(x)

    with torch.no_grad(), adapter.attach(model):
        compiled(x)
        full = model(x)
        assert [output.path for output in follow_a_run(model, lambda: compiled(x)).outputs] == ["blocks.0.proj", "blocks.1.proj"]
        assert torch.equal(model(x), full), "following a step left something behind in the adapter"
        model.blocks[0].proj = Wrapped(model.blocks[0].proj)
        assert [output.path for output in follow(model, (x,)).outputs] == ["blocks.0.proj", "blocks.1.proj"]


# -- any Linear ---------------------------------------------------------------------------------------------------


def streams(name, layer):
    model = DENOISERS[name][0]()[0]
    return [site.stream for site in name_linears(model, discover_sites(model)) if site.layer == layer]


def test_streams_of_any_linear():
    assert streams("sdxl", 0) == ["self.q", "self.k", "self.v", "self", "cross.q", "cross.k", "cross.v", "cross", "ff.up", "ff.down"]
    assert streams("flux", 2) == ["norm.linear", "ff.up", None, "q", "k", "v"]
    assert {"image.q", "text.q", "image.ff.up", "text.ff.down", "image", "text", "norm1.linear"} <= set(streams("flux", 0))
    assert {"image.ff.up", "text.q"} <= set(streams("sd3", 2)), "a last block without a text output keeps the names of the others"
    assert {"image.q", "text.ff.gate"} <= set(streams("lumina2", 0))
    assert "time_embedding.linear_1" in streams("sd15", 7), "what is in no block comes after all layers"


@pytest.mark.parametrize("name", DENOISERS)
def test_every_linear_has_a_name_of_its_own(name):
    with torch.device("meta"):
        model = DENOISERS[name][0]()[0]
    found = discover_sites(model)
    names = name_linears(model, found)
    assert len({(site.layer, site.stream) for site in names}) == len(names) == len({site.path for site in names})
    assert set(found.sites) <= set(names)
    several = discover_sites(model, "out,q,k,v")
    assert set(found.sites) < set(several.sites) < set(names)


def test_kinds_are_chosen_by_name():
    model = DENOISERS["flux"][0]()[0]
    kinds = {wanted: [site.stream for site in discover_sites(model, wanted).sites] for wanted in ("q", "ff", "out,q", "text")}
    assert kinds["q"] == ["image.q", "text.q"] * 2 + ["q"] * 2
    assert set(kinds["ff"]) == {"image.ff.up", "image.ff.down", "text.ff.up", "text.ff.down", "ff.up"}
    assert set(kinds["out,q"]) == {"image", "text", None, "image.q", "text.q", "q"}
    with pytest.raises(SiteError, match=r"no site is a 'qq' in this model; choose among out, all, .*ff"):
        discover_sites(model, "out,qq")
    with pytest.raises(SiteError, match="no kind of sites"):
        discover_sites(model, " , ")


def test_sites_of_all_kinds_are_applied(tmp_path):
    model, inputs = DENOISERS["flux"][0]()
    with torch.no_grad():
        shaken(model)
        found = discover_sites(model, "all")
        adapter = SparseAdapter.create(model, found.sites, AdapterConfig(atoms=4, rank=2), found.component).requires_grad_(False)
        base = output_of(model, inputs)
        with adapter.attach(model):
            assert torch.equal(output_of(model, inputs), base)
        for site in adapter.sites.values():
            site.dictionary_basis.normal_()
        with adapter.attach(model) as attachment:
            full = output_of(model, inputs)
            attachment.strength = 0
            assert torch.equal(output_of(model, inputs), base) and not torch.equal(full, base)
        save(adapter, tmp_path / "a.safetensors", torch.float32)
        with load(tmp_path / "a.safetensors").attach(model):  # narrow sites take fewer numbers dense, which rounds otherwise
            assert torch.allclose(output_of(model, inputs), full, atol=1e-4)
    assert data_flow.is_linear(model.proj_out)


# -- models of one class that differ ------------------------------------------------------------------------------


class Alternating(Model):
    """Blocks that are built alike; of the second one a part is left out."""

    def forward(self, x):
        q, k, v = self.blocks[1].qkv(self.blocks[0](x)).chunk(3, -1)
        return x + nn.functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]


def closing():
    """A setting of a block."""


def open_ended():
    """Another."""


class Closing:
    """A setting that is an object."""


class OpenEnded:
    """Another."""


class Choosing(Block):
    """One class, the same modules: a setting decides whether its attention has an output."""

    def __init__(self, setting):
        super().__init__(closed=setting in (True, "closing", closing) or isinstance(setting, Closing))
        self._closed = self.closed
        del self.closed
        self.setting = setting

    def forward(self, x):
        self.closed = self._closed
        x = super().forward(x)
        del self.closed
        return x


@pytest.mark.parametrize("settings", [(True, False), ("closing", "open"), (closing, open_ended), (Closing(), OpenEnded())], ids=["bool", "text", "function", "object"])
def test_what_was_seen_of_one_model_is_not_taken_for_another_of_its_class(settings):
    found = []
    for setting in settings:
        model = Model(Block(), Choosing(setting))
        found.append([site.path for site in discover_sites(model, run=lambda model=model: model(torch.randn(2, 5, 8))).sites])
    assert found == [["transformer.blocks.0.proj", "transformer.blocks.1.proj"], ["transformer.blocks.0.proj"]]


def test_blocks_that_are_built_alike_and_show_different_outputs_are_refused():
    model = Alternating(Block(), Block())
    for _ in range(2):
        with pytest.raises(SiteError, match=r"blocks\.0 and blocks\.1 of this Alternating are built alike, but .* \(proj\); give site names yourself"):
            discover_sites(model, run=lambda: model(torch.randn(2, 5, 8)))
