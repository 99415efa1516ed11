"""The host's modules as sites: which they are and under which names, and the models that are refused."""

import pytest
import tiny_models
import torch
from host_adapters import loaded, make_adapter
from torch import nn

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.errors import SiteError
from sparsedict.sparsedict_core.site import SiteName
from sparsedict.sparsedict_core.site_discovery import discover_sites

FAMILY = {"sd3": "sd3", "sd15": "sd15", "sdxl": "sdxl", "wan": "wan", "hydit": "hunyuan_dit"}


# -- names ------------------------------------------------------------------------------------------------------


def test_sites_are_found_under_diffusers_names(family, patcher):
    from sparsedict.comfyui_host.sites import host_sites

    sites = host_sites(patcher)
    assert sites.family == FAMILY[family]
    assert [name.path for name in sites.names] == list(sites.modules)
    for name in sites.names:
        assert name.path.startswith(sites.component + ".")
        assert isinstance(sites.modules[name.path].weight, torch.Tensor)
    assert len(set(map(id, sites.modules.values()))) == len(sites.modules)
    assert [n.layer for n in sites.names] == sorted(n.layer for n in sites.names)


def test_an_exchanged_module_is_seen(comfy):
    """What was found in a model is kept; another pack may put a module of its own in a site's place."""
    from sparsedict.comfyui_host.sites import host_sites

    patcher = tiny_models.load("wan")
    before = host_sites(patcher)
    assert host_sites(patcher) == before
    path, module = next(iter(before.modules.items()))
    attention = next(parent for parent in patcher.model.modules() if any(child is module for child in parent.children()))
    name = next(name for name, child in attention.named_children() if child is module)
    other = nn.Linear(module.weight.shape[1], module.weight.shape[0])
    setattr(attention, name, other)
    assert host_sites(patcher).modules[path] is other


def test_every_attention_output_is_a_site(family, patcher):
    from sparsedict.comfyui_host.sites import host_sites

    ends = {
        "sd3": (".attn.proj", ".attn2.proj"),
        "sd15": (".to_out.0",),
        "sdxl": (".to_out.0",),
        "wan": ("_attn.o",),
        "hydit": (".out_proj",),
    }[family]
    there = {id(m) for name, m in patcher.model.diffusion_model.named_modules() if name.endswith(ends)}
    assert there == {id(m) for m in host_sites(patcher).modules.values()}


def tiny_diffusers_unet():
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(320, 320), layers_per_block=1, cross_attention_dim=768, attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
    )  # fmt: skip


def tiny_diffusers_sdxl():
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(320, 320, 320), layers_per_block=2, cross_attention_dim=2048, attention_head_dim=5,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 2, 10),
        addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816, use_linear_projection=True,
    )  # fmt: skip


def test_an_sd15_unet_has_the_same_sites_in_diffusers(comfy):
    from sparsedict.comfyui_host.sites import host_sites

    with torch.device("meta"):
        here, there = host_sites(loaded("sd15")), discover_sites(tiny_diffusers_unet())
    assert (here.family, here.component, here.names) == (there.family, there.component, there.sites)


def test_an_sdxl_unet_has_the_same_sites_on_the_way_down_in_diffusers(comfy):
    """The tiny one is not symmetric, which diffusers cannot build; down, and the numbers, must agree."""
    from sparsedict.comfyui_host.sites import host_sites

    with torch.device("meta"):
        here, there = host_sites(loaded("sdxl")), discover_sites(tiny_diffusers_sdxl())
    assert here.family == there.family
    down = [name for name in there.sites if name.path.startswith("unet.down_blocks")]
    assert here.names[: len(down)] == down


@pytest.mark.parametrize("name", ["wan", "hunyuan_dit"])
def test_transformers_have_the_same_sites_in_diffusers(comfy, name):
    from core.tiny_denoisers import DENOISERS

    from sparsedict.comfyui_host.sites import host_sites

    there = discover_sites(DENOISERS[name][0]()[0])  # as many blocks as the tiny host model has
    here = host_sites(loaded({"hunyuan_dit": "hydit"}.get(name, name)))
    assert (here.family, here.component, here.names) == (there.family, there.component, there.sites)


@pytest.mark.parametrize("dual", [False, True])
def test_sd3_weights_from_diffusers_meet_their_own_names(comfy, dual):
    """The host converts diffusers' weights; each site's weight must be the very one that diffusers has under that name."""
    import comfy.sd
    from diffusers import SD3Transformer2DModel

    from sparsedict.comfyui_host.sites import host_sites

    torch.manual_seed(0)
    model = SD3Transformer2DModel(
        sample_size=16, num_layers=2, attention_head_dim=64, num_attention_heads=2, joint_attention_dim=64, caption_projection_dim=128,
        pooled_projection_dim=32, pos_embed_max_size=16, dual_attention_layers=(0,) if dual else (), qk_norm="rms_norm" if dual else None,
    )  # fmt: skip
    patcher = comfy.sd.load_diffusion_model_state_dict(dict(model.state_dict()))
    here, there = host_sites(patcher), discover_sites(model)
    assert (here.family, here.component, here.names) == (there.family, there.component, there.sites)
    for name in here.names:
        assert torch.equal(here.modules[name.path].weight, model.get_submodule(name.path.removeprefix("transformer.")).weight)


class Fake(nn.Module):
    """Only the modules that names are read from."""

    def __init__(self, *paths):
        super().__init__()
        for path in paths:
            inner = self
            *parents, last = path.split(".")
            for part in parents:
                if not hasattr(inner, part):
                    inner.add_module(part, nn.Module())
                inner = getattr(inner, part)
            inner.add_module(last, nn.Linear(4, 4))


def fake_patcher(kind, config, *paths):
    """What stands for a ModelPatcher with a model of the host's class `kind`."""
    from types import SimpleNamespace

    model = type(kind, (), {"__module__": "comfy.model_base"})()
    model.diffusion_model, model.model_config = Fake(*paths), SimpleNamespace(unet_config=config)
    return SimpleNamespace(model=model)


DOUBLE = [f"double_blocks.{n}.{s}_attn.proj" for n in range(2) for s in ("img", "txt")]
SINGLE = [f"single_blocks.{n}.linear2" for n in range(2)]
WIDE = {"depth": 2, "depth_single_blocks": 2, "hidden_size": 4}
REFINED = ["noise_refiner.0.attention.out", "context_refiner.0.attention.out", "layers.0.attention.out", "layers.1.attention.out"]
QWEN = [f"transformer_blocks.{n}.attn.{o}" for n in range(3) for o in ("to_out.0", "to_add_out")]


@pytest.mark.parametrize(
    "name, kind, config, paths",
    [
        ("flux", "Flux", WIDE, [*DOUBLE, *SINGLE, "final_layer.linear"]),
        ("flux2", "Flux2", WIDE, [*DOUBLE, *SINGLE, "double_stream_modulation_img.lin"]),
        ("chroma", "Chroma", WIDE, [*DOUBLE, *SINGLE, "distilled_guidance_layer.in_proj"]),
        ("longcat_image", "LongCatImage", WIDE, [*DOUBLE, *SINGLE, "final_layer.linear"]),
        ("hunyuan_video", "HunyuanVideo", WIDE, [*DOUBLE, *SINGLE, "txt_in.individual_token_refiner.blocks.0.self_attn.proj"]),
        ("qwen_image", "QwenImage", {}, QWEN),
        ("lumina2", "Lumina2", {}, REFINED),
        ("z_image", "Lumina2", {"pad_tokens_multiple": 32}, REFINED),
    ],
)
def test_larger_families_have_the_same_sites_in_diffusers(comfy, name, kind, config, paths):
    from sparsedict.comfyui_host.sites import host_sites

    here = host_sites(fake_patcher(kind, config, *paths))
    there = discover_sites(diffusers_twin(name))
    assert (here.family, here.component, here.names) == (there.family, there.component, there.sites)


def diffusers_twin(name):
    """The real class of diffusers, as small as it gets."""
    import diffusers
    from core.tiny_denoisers import DENOISERS

    if name in DENOISERS:
        return DENOISERS[name][0]()[0]
    heads = {"attention_head_dim": 16, "num_attention_heads": 2}
    if name in ("chroma", "longcat_image"):
        from core.newer_denoisers import NEWER

        return NEWER[name.removesuffix("_image")][0]()[0]
    if name == "flux2":
        return diffusers.Flux2Transformer2DModel(in_channels=4, num_layers=2, num_single_layers=2, joint_attention_dim=12, axes_dims_rope=(4, 4, 4, 4), **heads)
    if name == "hunyuan_video":
        return diffusers.HunyuanVideoTransformer3DModel(
            in_channels=4, out_channels=4, num_layers=2, num_single_layers=2, num_refiner_layers=1, text_embed_dim=12, pooled_projection_dim=8,
            rope_axes_dim=(4, 6, 6), **heads,
        )  # fmt: skip
    return diffusers.ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=12, axes_dims=[4, 6, 6], axes_lens=[32, 32, 32]
    )


def test_the_alias_tree_is_the_host_under_canonical_names(family, patcher):
    from sparsedict.comfyui_host.sites import alias_tree, host_sites

    sites = host_sites(patcher)
    before = [name for name, _ in patcher.model.named_modules()]
    tree = alias_tree(sites)
    modules = dict(tree.named_modules())
    for path, module in sites.modules.items():
        assert modules[path] is module
    assert discover_sites(tree).sites == sites.names
    assert discover_sites(tree).family == sites.family
    assert [name for name, _ in patcher.model.named_modules()] == before


# -- wrong models -------------------------------------------------------------------------------------------------


def test_an_adapter_of_another_family_is_refused(comfy):
    from sparsedict.comfyui_host.sites import modules_for

    adapter = make_adapter(loaded("sd3"))
    with pytest.raises(SiteError, match=r"made for sd3, this model is wan; load a sd3 model"):
        modules_for(adapter, loaded("wan"))


def test_a_demo_file_fits_a_model_of_its_layout(comfy):
    from sparsedict.comfyui_host.sites import modules_for

    adapter = make_adapter(loaded("sd3"), base_family="demo")
    assert modules_for(adapter, loaded("sd3")).keys() == adapter.sites.keys()
    with pytest.raises(SiteError, match="made for demo, this model is wan"):
        modules_for(adapter, loaded("wan"))


def test_a_missing_site_is_named_with_its_neighbours(comfy):
    from sparsedict.comfyui_host.sites import modules_for

    adapter = make_adapter(loaded("sd3"))
    next(iter(adapter.sites.values())).name = SiteName("transformer.transformer_blocks.9.attn.to_out.0", 9, "image")
    with pytest.raises(SiteError, match=r"1 of 3 sites .*transformer_blocks\.9.*near names are transformer\.transformer_blocks\.\d"):
        modules_for(adapter, loaded("sd3"))


def test_other_widths_are_refused(comfy):
    from sparsedict.comfyui_host.sites import modules_for

    tree = nn.Module()
    names = make_adapter(loaded("sd3")).sites.values()
    tree = Fake(*[site.name.path for site in names])
    adapter = SparseAdapter.create(tree, [site.name for site in names], AdapterConfig(atoms=4, rank=2), "transformer")
    with pytest.raises(SiteError, match=r"maps 128 channels to 128 in this sd3 model, the adapter was made for 4 to 4"):
        modules_for(adapter, loaded("sd3"))


def test_an_unknown_model_says_what_is_known(comfy):
    from sparsedict.comfyui_host.families import HOST_FAMILIES
    from sparsedict.comfyui_host.sites import host_sites

    with pytest.raises(SiteError, match="no sites are known for the host's Krea2 model before it has made a step; train on it here, or use") as error:
        host_sites(fake_patcher("Krea2", {}, "something.else"))
    assert all(family.titles in str(error.value) for family in HOST_FAMILIES)
    with pytest.raises(SiteError, match="holds no diffusion model"):
        host_sites(object())


@pytest.mark.parametrize("kind, like", [("Lens", QWEN), ("MageFlow", QWEN), ("SVD_img2vid", ["input_blocks.0"]), ("Hunyuan3Dv2_1", ["blocks.0.attn1.out_proj"])])
def test_models_that_only_look_like_a_family_are_not_taken_for_it(comfy, kind, like):
    from sparsedict.comfyui_host.sites import host_family, host_sites

    patcher = fake_patcher(kind, {}, *like)
    assert host_family(patcher) == kind
    with pytest.raises(SiteError, match=f"no sites are known for the host's {kind} model"):
        host_sites(patcher)


def test_a_flux_file_is_refused_on_chroma_but_for_one_that_was_made_there(comfy):
    """Files of before Chroma had a name of its own say flux; their fingerprint tells."""
    from sparsedict.comfyui_host.sites import alias_tree, host_sites, modules_for
    from sparsedict.sparsedict_core.fingerprint import fingerprint

    patcher = fake_patcher("Chroma", WIDE, *DOUBLE, *SINGLE)
    sites = host_sites(patcher)
    adapter = SparseAdapter.create(alias_tree(sites), sites.names, AdapterConfig(atoms=2, rank=2), sites.component, metadata={"base_family": "flux"})
    with pytest.raises(SiteError, match="made for flux, this model is chroma"):
        modules_for(adapter, patcher)
    adapter.metadata["base_fingerprint"] = fingerprint(alias_tree(sites), sites.names, sites.component)
    assert modules_for(adapter, patcher).keys() == adapter.sites.keys()


def test_a_class_of_another_pack_counts_as_the_hosts(comfy):
    import comfy.model_base

    from sparsedict.comfyui_host.sites import host_kind

    class Theirs(comfy.model_base.Flux):
        pass

    patcher = fake_patcher("Flux", {})
    patcher.model = Theirs.__new__(Theirs)
    assert host_kind(patcher) == "Flux"


# -- other kinds of sites -----------------------------------------------------------------------------------------


def test_q_k_and_v_are_slices_of_the_hosts_fused_linear(comfy):
    from sparsedict.comfyui_host.sites import alias_tree, host_sites, modules_for

    patcher = loaded("sd3")
    tree = alias_tree(host_sites(patcher))
    found = discover_sites(tree, "out,q,k,v,ff")
    adapter = SparseAdapter.create(tree, found.sites, AdapterConfig(atoms=2, rank=2), found.component, metadata={"base_family": "sd3"})
    places = modules_for(adapter, patcher)
    q, k, v = (places[f"transformer.transformer_blocks.0.attn.to_{name}"] for name in "qkv")
    assert q.module is k.module is v.module and (q.rows, k.rows, v.rows) == ((0, 128), (128, 256), (256, 384))
    assert {"image.q", "text.v", "image.ff.up", "text.ff.down"} <= {site.stream for site in found.sites}
