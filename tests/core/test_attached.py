"""Adapters on real (tiny) diffusers pipelines by name: found again, several at once, and through what scripts do to a pipeline."""

from __future__ import annotations

import copy
import gc
import pickle
import warnings
import weakref

import pytest
import tiny_pipelines
import torch
from core.tiny_adapters import make_adapter
from torch._dynamo.testing import CompileCounter

from sparsedict import attached
from sparsedict.sparsedict_core import AdapterConfig, SparseAdapter, discover_sites, load, save
from sparsedict.sparsedict_core.errors import SiteError, SparseDictError
from sparsedict.sparsedict_core.fingerprint import fingerprint


@pytest.fixture
def pipe():
    return tiny()


def tiny(family="sd15", seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = tiny_pipelines.PIPELINES[family]()
    made.set_progress_bar_config(disable=True)
    return made


def adapter_for(pipe, seed=1, title="zorp", **config) -> SparseAdapter:
    """One whose update is plainly seen, and which knows its base."""
    found = discover_sites(pipe)
    denoiser = getattr(pipe, found.component)
    adapter = SparseAdapter.create(denoiser, found.sites, AdapterConfig(**{"atoms": 8, "rank": 4, **config}), found.component, seed)
    generator = torch.Generator().manual_seed(seed)
    for site in adapter.sites.values():
        for tensor in (site.dictionary_weight, site.dictionary_basis):
            if tensor is not None:
                tensor.data = torch.randn(tensor.shape, generator=generator)
    adapter.metadata.update(base_family=found.family, base_fingerprint=fingerprint(denoiser, found.sites, found.component), title=title)
    return adapter.requires_grad_(False)


@torch.no_grad()
def picture(pipe) -> torch.Tensor:
    denoiser = pipe.unet
    generator = torch.Generator().manual_seed(3)
    x, text = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 5, 16, generator=generator)
    return denoiser(x, torch.tensor([500]), text).sample


# --- what is checked ---


def test_three_lines_and_the_adapter_is_found_again(pipe, tmp_path):
    save(adapter_for(pipe), tmp_path / "a.safetensors")
    base = picture(pipe)
    attachment = load(tmp_path / "a.safetensors").attach(pipe, 0.5)
    assert not torch.equal(picture(pipe), base)
    assert list(attached(pipe)) == ["zorp"] and attached(pipe)["zorp"] is attachment and attached(pipe.unet).strengths == {"zorp": 0.5}
    attached(pipe).remove_all()
    assert torch.equal(picture(pipe), base) and len(attached(pipe)) == 0


def test_a_title_is_text(pipe):
    adapter_for(pipe, title="zo\x1b[2Jrp").attach(pipe)
    assert repr(attached(pipe)) == "Attached(zo\\x1b[2Jrp=1)"


def test_another_family_is_refused_and_another_base_is_warned_of(pipe):
    adapter = adapter_for(pipe)
    with pytest.raises(SiteError, match="made for sd15, this base model is sdxl"):
        adapter.attach(tiny("sdxl"))
    with pytest.warns(UserWarning, match="another model of this family"):
        adapter.attach(tiny(seed=9))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapter.attach(pipe)
    with pytest.raises(SiteError, match="neither a transformer nor a unet"):
        adapter.attach(object())


def test_a_compiled_transformer_is_found_in_its_pipeline():
    pipe = tiny("sd3")
    adapter = adapter_for(pipe)
    pipe.transformer = torch.compile(pipe.transformer)
    adapter.attach(pipe)
    assert list(attached(pipe)) == list(attached(pipe.transformer)) == ["zorp"]


def test_a_name_is_there_once(pipe):
    adapter = adapter_for(pipe)
    adapter.attach(pipe)
    with pytest.raises(SiteError, match=r"'zorp' is on this model already.*another name"):
        adapter.attach(pipe)
    adapter.attach(pipe, name="again")
    assert list(attached(pipe)) == ["zorp", "again"]
    with pytest.raises(SiteError, match=r"no adapter named 'typo'.*zorp, again"):
        attached(pipe).remove("typo")


def test_one_detached_by_itself_is_gone_from_the_list(pipe):
    with adapter_for(pipe).attach(pipe):
        assert "zorp" in attached(pipe)
    assert "zorp" not in attached(pipe)
    adapter_for(pipe).attach(pipe).detach()
    assert repr(attached(pipe)) == "Attached()"


# --- several ---


def test_several_with_strengths_off_and_on_again(pipe):
    base = picture(pipe)
    one, two = adapter_for(pipe, 1, "one"), adapter_for(pipe, 2, "two")
    with one.attach(pipe, 0.5):
        alone = picture(pipe)
    one.attach(pipe), two.attach(pipe)
    both = picture(pipe)
    attached(pipe).set_adapters("one", 0.5)
    assert torch.equal(picture(pipe), alone) and attached(pipe).strengths == {"one": 0.5, "two": 0.0}
    attached(pipe).set_adapters(["one", "two"], [1.0, 1.0])
    assert torch.equal(picture(pipe), both)
    attached(pipe).disable()
    attached(pipe).disable()
    assert torch.equal(picture(pipe), base)
    attached(pipe).enable()
    assert torch.equal(picture(pipe), both) and repr(attached(pipe)) == "Attached(one=1, two=1)"
    with pytest.raises(SiteError, match="2 names but 1 strengths"):
        attached(pipe).set_adapters(["one", "two"], [1.0])
    with pytest.raises(SiteError, match="three"):
        attached(pipe).set_adapters(["one", "three"])
    with pytest.raises(SparseDictError, match="finite"):
        attached(pipe).set_adapters("one", float("nan"))


def test_exchange_keeps_name_strength_and_place(pipe):
    first, second = adapter_for(pipe, 1, "first"), adapter_for(pipe, 2, "second")
    with second.attach(pipe, 0.5):
        wanted = picture(pipe)
    attachment = first.attach(pipe, 0.5, name="slot")
    picture(pipe)  # what is made for calls is made
    assert attached(pipe).exchange("slot", second) is attachment
    assert torch.equal(picture(pipe), wanted) and first.metadata["title"] == "second"
    larger = adapter_for(pipe, 3, "larger", atoms=12)
    with larger.attach(pipe, 0.5, name="other"):
        attached(pipe)["slot"].strength = 0
        wanted = picture(pipe)
        attached(pipe)["slot"].strength = 0.5
    assert attached(pipe).exchange("slot", larger) is not attachment
    assert torch.equal(picture(pipe), wanted) and attached(pipe).strengths == {"slot": 0.5}
    with pytest.raises(SiteError, match="sdxl"):
        attached(pipe).exchange("slot", adapter_for(tiny("sdxl")))


@torch.no_grad()
def test_nothing_of_it_compiles_anew(pipe):
    torch._dynamo.reset()
    compiled = CompileCounter()
    one, two, third = (adapter_for(pipe, seed, str(seed)) for seed in (1, 2, 3))
    wanted = []
    for adapter in (one, third):
        with adapter.attach(pipe):
            wanted.append(picture(pipe))
    base = picture(pipe)
    pipe.unet = torch.compile(pipe.unet, backend=compiled)
    one.attach(pipe), two.attach(pipe)
    picture(pipe)
    count = compiled.frame_count
    attached(pipe).set_adapters("1")
    torch.testing.assert_close(picture(pipe), wanted[0])
    attached(pipe).exchange("1", third)
    torch.testing.assert_close(picture(pipe), wanted[1])
    attached(pipe).disable()
    torch.testing.assert_close(picture(pipe), base)
    attached(pipe).enable()
    torch.testing.assert_close(picture(pipe), wanted[1])
    assert compiled.frame_count == count
    attached(pipe).remove_all()
    assert torch.allclose(picture(pipe), base, atol=1e-5)
    torch._dynamo.reset()


# --- what scripts do to pipelines ---


def add_lora(pipe):
    from peft import LoraConfig

    torch.manual_seed(0)
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_out.0"], init_lora_weights="gaussian"), "lora")
    for name, parameter in pipe.unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)


@pytest.mark.parametrize("lora_first", [True, False])
def test_a_lora_comes_and_goes_and_the_adapter_stays(pipe, lora_first):
    adapter = adapter_for(pipe)
    base = picture(pipe)
    with adapter.attach(pipe):
        wanted = picture(pipe)
    if lora_first:
        add_lora(pipe)
        lora_alone = picture(pipe)
        adapter.attach(pipe)
    else:
        adapter.attach(pipe)
        add_lora(pipe)
        with torch.no_grad():
            attached(pipe).disable()
            lora_alone = picture(pipe)
            attached(pipe).enable()
    both = picture(pipe)
    assert not torch.allclose(both, wanted) and not torch.allclose(both, lora_alone)
    pipe.unload_lora_weights()
    assert torch.equal(picture(pipe), wanted) and list(attached(pipe)) == ["zorp"]
    attached(pipe).remove("zorp")
    assert torch.equal(picture(pipe), base)


def test_fused_projections_and_a_fused_lora(pipe):
    adapter = adapter_for(pipe)
    with adapter.attach(pipe):
        wanted = picture(pipe)
    adapter.attach(pipe)
    pipe.unet.fuse_qkv_projections()
    torch.testing.assert_close(picture(pipe), wanted)
    pipe.unet.unfuse_qkv_projections()
    add_lora(pipe)
    both = picture(pipe)
    pipe.fuse_lora()
    torch.testing.assert_close(picture(pipe), both, atol=1e-4, rtol=1e-3)


def test_offloaded_weights_are_no_obstacle(pipe):
    import accelerate

    adapter = adapter_for(pipe)
    with adapter.attach(pipe):
        wanted = picture(pipe)
    accelerate.cpu_offload(pipe.unet, torch.device("cpu"))
    assert next(pipe.unet.parameters()).is_meta
    adapter.attach(pipe)
    assert torch.equal(picture(pipe), wanted)


def test_quantised_weights_are_no_obstacle(pipe):
    adapter = adapter_for(pipe)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe.unet = torch.ao.quantization.quantize_dynamic(pipe.unet, {torch.nn.Linear}, torch.qint8)
    base = picture(pipe)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that its base has other numbers now is no news
        adapter.attach(pipe)
    assert not torch.equal(picture(pipe), base)
    attached(pipe).remove_all()
    assert torch.equal(picture(pipe), base)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))], ids=["deepcopy", "pickle"])
def test_copies_of_the_model_are_bare_and_copies_of_the_adapter_are_whole(pipe, copied):
    base = picture(pipe)
    adapter = adapter_for(pipe)
    adapter.attach(pipe)
    wanted = picture(pipe)
    with pytest.warns(UserWarning, match="without the adapter") as told:
        unet = copied(pipe.unet)
    assert [str(each.message) for each in told if "without the adapter" in str(each.message)] == [str(told[0].message)]
    assert len(attached(unet)) == 0
    mine, pipe.unet = pipe.unet, unet
    assert torch.equal(picture(pipe), base)
    copied(adapter).attach(pipe)
    assert torch.equal(picture(pipe), wanted)
    pipe.unet = mine


def test_a_thousand_times_on_and_off_leaves_nothing(pipe):
    adapter = adapter_for(pipe)
    del adapter.metadata["base_fingerprint"]  # looking at all weights is what takes long

    def round_trips(count):
        for _ in range(count):
            adapter.attach(pipe)
            attached(pipe).remove_all()
        gc.collect()
        tensors = sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())
        return tensors, len(gc.get_objects()), [len(module._forward_hooks) for module in pipe.unet.modules()]

    tensors, objects, hooks = round_trips(20)
    more, grown, left = round_trips(1000)
    # Fewer is fine: what tests before this one have left may go meanwhile.
    assert more <= tensors and left == hooks and grown <= objects + 200 and sum(left) == 0


def test_a_model_that_is_gone_is_forgotten(pipe):
    from sparsedict.sparsedict_core.attached import _MODELS

    gone = weakref.ref(pipe.unet)
    adapter_for(pipe).attach(pipe)
    assert gone() in _MODELS
    del pipe.unet
    gc.collect()
    assert gone() is None


# --- in a notebook ---


def test_a_notebook_shows_layers_by_atoms(pipe):
    adapter = adapter_for(pipe, title="<b>bold</b>")
    adapter.metadata["trigger_words"] = ["<script>"]
    for site in adapter.sites.values():
        site.importance = torch.rand(site.atoms)
    page = adapter._repr_html_()
    assert page.count("data:image/png;base64,") == len(adapter.sites)
    assert "<script>" not in page and "&lt;b&gt;bold" in page and f"{adapter.atom_count} atoms at {len(adapter.sites)} sites" in page


@pytest.mark.parametrize("name", [3, "", " "])
def test_a_name_is_a_text(pipe, name):
    with pytest.raises(SiteError, match="not empty"):
        adapter_for(pipe).attach(pipe, name=name)
    assert not attached(pipe)


def test_a_notebook_shows_all_that_is_attached(pipe):
    assert "no adapter" in attached(pipe)._repr_html_()
    adapters = [adapter_for(pipe, title=title) for title in ("<one>", "two")]
    for adapter, strength in zip(adapters, (0.5, 1)):
        adapter.attach(pipe, strength)
    page = attached(pipe)._repr_html_()
    assert "&lt;one&gt; at 0.5" in page and "two at 1" in page and all(adapter._repr_html_() in page for adapter in adapters)


@pytest.mark.parametrize("ids, width", [([0, 5], 6), ([7, 2_000_000_000], 2)])
def test_the_strip_of_a_site_has_a_pixel_an_atom_and_grey_gaps(ids, width, model):
    import base64
    import io
    import re

    from PIL import Image

    adapter = make_adapter(model, 1)
    for site in adapter.sites.values():
        site.keep(torch.arange(site.atoms) < 2)
        site.atom_ids, site.importance = torch.tensor(ids, dtype=torch.int32), torch.tensor([1.0, 0.0])
    data = re.findall(r"base64,([^\"]+)", adapter._repr_html_())[0]
    strip = Image.open(io.BytesIO(base64.b64decode(data)))
    assert strip.size == (width, 1) and strip.getpixel((0, 0)) == (253, 231, 37)
    assert width == 2 or strip.getpixel((1, 0)) == (228, 228, 228)
