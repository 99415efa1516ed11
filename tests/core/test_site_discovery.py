"""Sites of tiny random models of the real diffusers classes: found, hooked, used, trainable."""

from __future__ import annotations

import pytest
import torch
from core.tiny_denoisers import DENOISERS, shaken

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.addresses import format_address, resolve
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.errors import SiteError
from sparsedict.sparsedict_core.file_format import load, save
from sparsedict.sparsedict_core.site_discovery import discover_sites


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def made(name):
    model, inputs = DENOISERS[name][0]()
    return shaken(model), inputs


def output_of(model, inputs):
    return model(**inputs, return_dict=False)[0]


@pytest.mark.parametrize("name", DENOISERS)
def test_discovery(name, tmp_path):
    _, family, component, count = DENOISERS[name]
    model, inputs = made(name)
    found = discover_sites(model)
    assert (found.family, found.component, len(found.sites)) == (family, component, count)
    assert len({site.path for site in found.sites}) == count
    layers = [site.layer for site in found.sites]
    assert layers == sorted(layers) and set(layers) == set(range(max(layers) + 1))
    adapter = SparseAdapter.create(model, found.sites, AdapterConfig(encoder="linear", atoms=6, rank=3), component)
    calls = []
    base = output_of(model, inputs)
    with adapter.attach(model) as attachment, attachment.tap(lambda *args: calls.append(args[0])):
        assert torch.equal(output_of(model, inputs), base)
        assert sorted(calls) == sorted(adapter.sites)
        output_of(model, inputs).square().mean().backward()
    for key, site in adapter.sites.items():
        assert site.dictionary_basis.grad.abs().sum() > 0, f"{key} has no influence on the output"
        atom = format_address(adapter, key, 2)
        assert {k for k, mask in resolve(adapter, atom).items() if mask.any()} == {key}
    save(adapter, tmp_path / "a.safetensors")
    with load(tmp_path / "a.safetensors").attach(model):
        assert torch.equal(output_of(model, inputs), base)
    assert torch.equal(output_of(model, inputs), base)


def test_names_and_streams():
    def table(name):
        return [(site.path, site.layer, site.stream) for site in discover_sites(DENOISERS[name][0]()[0]).sites]

    assert table("sd3")[-3:] == [
        ("transformer.transformer_blocks.1.attn.to_out.0", 1, "image"),
        ("transformer.transformer_blocks.1.attn.to_add_out", 1, "text"),
        ("transformer.transformer_blocks.2.attn.to_out.0", 2, "image"),
    ]
    assert ("transformer.transformer_blocks.0.attn2.to_out.0", 0, "dual") in table("sd35")
    assert table("flux")[-1] == ("transformer.single_transformer_blocks.1.proj_out", 3, None)
    assert table("sd15")[:2] == [
        ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0", 0, "self"),
        ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0", 0, "cross"),
    ]
    assert table("qwen_image")[-1] == ("transformer.transformer_blocks.2.attn.to_out.0", 2, "image")
    assert table("wan")[1] == ("transformer.blocks.0.attn2.to_out.0", 0, "cross")


def test_a_pipeline_and_things_that_are_none():
    model = DENOISERS["sd3"][0]()[0]

    class Pipeline:
        transformer = model

    assert discover_sites(Pipeline()).sites == discover_sites(model).sites
    with pytest.raises(SiteError, match=r"no sites are known for a Linear.*FluxTransformer2DModel"):
        discover_sites(torch.nn.Linear(2, 2))
    with pytest.raises(SiteError, match="neither a transformer nor a unet"):
        discover_sites(object())


#: ComfyUI's class of a model (with what its config says) → diffusers' class of the same model
SAME_MODELS = {
    ("SDXL", (("num_classes", "sequential"),)): "UNet2DConditionModel",
    ("SD3", ()): "SD3Transformer2DModel",
    ("Flux", ()): "FluxTransformer2DModel",
    ("Flux2", ()): "Flux2Transformer2DModel",
    ("Chroma", ()): "ChromaTransformer2DModel",
    ("LongCatImage", ()): "LongCatImageTransformer2DModel",
    ("HunyuanVideo", ()): "HunyuanVideoTransformer3DModel",
    ("HunyuanDiT", ()): "HunyuanDiT2DModel",
    ("WAN21", ()): "WanTransformer3DModel",
    ("QwenImage", ()): "QwenImageTransformer2DModel",
    ("Lumina2", ()): "Lumina2Transformer2DModel",
    ("Lumina2", (("pad_tokens_multiple", 32),)): "ZImageTransformer2DModel",
}


def test_a_family_has_one_name_in_all_programs():
    """Else a file of one program is refused in the other."""
    from sparsedict.comfyui_host.families import HOST_FAMILIES
    from sparsedict.sparsedict_core.families import FAMILIES

    class Config:
        addition_embed_type = "text_time"

    def ours(kind):
        model = type(kind, (), {"config": Config})()
        return next(family.name(model) for family in FAMILIES if kind in family.classes)

    for (kind, config), denoiser in SAME_MODELS.items():
        host = next(family for family in HOST_FAMILIES if kind in family.classes)
        assert host.name(kind, frozenset(), dict(config)) == ours(denoiser), kind
        assert denoiser in host.layout.classes, f"{kind} has another layout than {denoiser}"
    tested = {kind for kind, _ in SAME_MODELS}
    assert all(tested & set(family.classes) for family in HOST_FAMILIES), "a family of the host that is held against none of diffusers"
    only_in_diffusers = {"PixArtTransformer2DModel", "SanaTransformer2DModel"}
    assert {name for family in FAMILIES for name in family.classes} == set(SAME_MODELS.values()) | only_in_diffusers
