"""The host's models as bearers of adapters: which modules are sites under which names, and hooks that leave no trace."""

import pytest
import tiny_models
import torch
from torch import nn

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.errors import SiteError
from sparsedict.sparsedict_core.site import SiteName
from sparsedict.sparsedict_core.site_discovery import discover_sites

FAMILY = {"sd3": "sd3", "sd15": "sd15", "sdxl": "sdxl", "wan": "wan", "hydit": "hunyuan_dit"}
_LOADED: dict = {}


@pytest.fixture(scope="module", autouse=True)
def _unload():
    yield
    _LOADED.clear()  # later the interpreter goes down, and the host's modules with it, before its models


@pytest.fixture(params=tiny_models.FAMILIES)
def family(request, comfy) -> str:
    return request.param


@pytest.fixture
def patcher(family):
    return loaded(family)


def loaded(family):
    """One model a family; every test must leave it as it was."""
    if family not in _LOADED:
        _LOADED[family] = tiny_models.load(family)
    return _LOADED[family]


def make_adapter(patcher, atoms=12, rank=4, seed=0, **metadata) -> SparseAdapter:
    """Random atoms that really change the picture."""
    from sparsedict.comfyui_host.sites import alias_tree, host_sites

    sites = host_sites(patcher)
    config = AdapterConfig(atoms=atoms, rank=rank, encoder="quantile")
    metadata = {"base_family": sites.family, "title": "test", **metadata}
    adapter = SparseAdapter.create(alias_tree(sites), sites.names, config, sites.component, seed, metadata)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for site in adapter.sites.values():
            site.dictionary_basis.copy_(torch.randn(site.dictionary_basis.shape, generator=generator) * 0.3)
            site.threshold.fill_(0.5)
            site.importance = torch.rand(site.atoms, generator=generator) + 0.01
    return adapter.requires_grad_(False)


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


def fake_patcher(config, *paths):
    from types import SimpleNamespace

    model = SimpleNamespace(diffusion_model=Fake(*paths), model_config=SimpleNamespace(unet_config=config))
    return SimpleNamespace(model=model)


DOUBLE = [f"double_blocks.{n}.{s}_attn.proj" for n in range(2) for s in ("img", "txt")]
SINGLE = [f"single_blocks.{n}.linear2" for n in range(2)]
WIDE = {"depth": 2, "depth_single_blocks": 2, "hidden_size": 4}
REFINED = ["noise_refiner.0.attention.out", "context_refiner.0.attention.out", "layers.0.attention.out", "layers.1.attention.out"]
QWEN = [f"transformer_blocks.{n}.attn.{o}" for n in range(3) for o in ("to_out.0", "to_add_out")]


@pytest.mark.parametrize(
    "name, config, paths",
    [
        ("flux", WIDE, [*DOUBLE, *SINGLE, "final_layer.linear"]),
        ("flux2", WIDE, [*DOUBLE, *SINGLE, "double_stream_modulation_img.lin"]),
        ("hunyuan_video", WIDE, [*DOUBLE, *SINGLE, "txt_in.individual_token_refiner.blocks.0.self_attn.proj"]),
        ("qwen_image", {}, QWEN),
        ("lumina2", {}, REFINED),
        ("z_image", {"pad_tokens_multiple": 32}, REFINED),
    ],
)
def test_larger_families_have_the_same_sites_in_diffusers(comfy, name, config, paths):
    from sparsedict.comfyui_host.sites import host_sites

    here = host_sites(fake_patcher(config, *paths))
    there = discover_sites(diffusers_twin(name))
    assert (here.family, here.component, here.names) == (there.family, there.component, there.sites)


def diffusers_twin(name):
    """The real class of diffusers, as small as it gets."""
    import diffusers
    from core.tiny_denoisers import DENOISERS

    if name in DENOISERS:
        return DENOISERS[name][0]()[0]
    heads = {"attention_head_dim": 16, "num_attention_heads": 2}
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
    from sparsedict.comfyui_host.sites import host_sites

    with pytest.raises(SiteError, match=r"no sites are known.*Flux"):
        host_sites(fake_patcher({}, "something.else"))
    with pytest.raises(SiteError, match="holds no diffusion model"):
        host_sites(object())


# -- hooks --------------------------------------------------------------------------------------------------------


def sample(patcher, family, steps=2):
    """Without guidance: half the work, and the same hooks."""
    return tiny_models.sample(patcher, family, steps=steps, guidance=1.0)


def hooks(patcher) -> int:
    return sum(len(m._forward_hooks) for m in patcher.model.diffusion_model.modules())


@pytest.fixture
def apply(comfy):
    from sparsedict.comfyui_host.injection import apply_adapter

    return apply_adapter


_BASE: dict = {}


@pytest.fixture
def base(family, patcher):
    """The base's latents, and afterwards the proof that nothing stays."""
    if family not in _BASE:
        _BASE[family] = sample(patcher, family)
    yield _BASE[family]
    assert torch.equal(sample(patcher, family), _BASE[family])
    assert hooks(patcher) == 0


def test_identities(family, patcher, base, apply):
    """Bit by bit: strength 0, all gains zero and a removed adapter are the base; all gains one are the adapter."""
    adapter = make_adapter(patcher)

    def sampled(**how):
        return sample(apply(patcher, adapter, **how), family)

    plain = sampled()
    assert torch.isfinite(plain).all() and (plain - base).abs().max() > 1e-3
    assert torch.equal(sampled(strength=0.0), base)
    assert torch.equal(sampled(gains={key: torch.zeros(site.atoms) for key, site in adapter.sites.items()}), base)
    assert torch.equal(sampled(gains={key: torch.ones(site.atoms) for key, site in adapter.sites.items()}), plain)
    half = {key: (torch.arange(site.atoms) % 2).float() for key, site in adapter.sites.items()}
    assert not torch.equal(sampled(gains=half), plain) and not torch.equal(sampled(gains=half), base)


def test_two_branches_do_not_leak(family, patcher, base, apply):
    a, b = apply(patcher, make_adapter(patcher, seed=1)), apply(patcher, make_adapter(patcher, seed=2))
    first = sample(a, family), sample(b, family)
    again = sample(a, family), sample(b, family)
    assert not torch.equal(*first)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])


def test_it_chains_with_itself(family, patcher, base, apply):
    one, two = make_adapter(patcher, seed=1), make_adapter(patcher, seed=2)
    alone = apply(patcher, one)
    # Sampled first, so that the clone is made of a patcher that is loaded and injected.
    single = sample(alone, family)
    both = apply(alone, two)
    chained = sample(both, family)
    assert not torch.equal(chained, single)
    assert torch.equal(chained, sample(apply(apply(patcher, one), two), family))
    assert torch.equal(sample(alone, family), single)
    assert torch.equal(sample(apply(alone, two, strength=0.0), family), single)


def test_an_error_while_sampling_leaves_the_base_clean(family, patcher, base, apply):
    adapter = make_adapter(patcher)
    good = sample(apply(patcher, adapter), family)
    broken = apply(patcher, adapter, start_percent=0.0, end_percent=0.9)

    def fail(executor, *args, **kwargs):
        executor(*args, **kwargs)
        raise RuntimeError("stopped")

    broken.add_wrapper("apply_model", fail)
    with pytest.raises(RuntimeError, match="stopped"):
        sample(broken, family)
    assert torch.equal(sample(patcher, family), base)
    assert torch.equal(sample(apply(patcher, adapter), family), good)


def test_clones_of_a_loaded_patcher_are_hooked_and_collected_without_a_trace(comfy, apply):
    import gc

    patcher = loaded("sd3")
    adapter = make_adapter(patcher)
    a = apply(patcher, adapter)
    with_adapter = sample(a, "sd3")
    sites = hooks(patcher)
    assert sites == len(adapter.sites)
    child = a.clone()  # as the host's LoRA loader makes one
    assert torch.equal(sample(child, "sd3"), with_adapter)
    assert hooks(patcher) == sites
    sample(a, "sd3")
    del child
    gc.collect()
    assert hooks(patcher) == sites, "collecting a child must not eject its parent"
    assert torch.equal(sample(a, "sd3"), with_adapter)
    del a
    gc.collect()
    sample(patcher, "sd3")
    assert hooks(patcher) == 0


def test_with_the_hosts_lora_in_either_order(comfy, apply):
    patcher = loaded("sd3")
    adapter = make_adapter(patcher)
    key = "diffusion_model.joint_blocks.0.x_block.attn.proj.weight"
    change = {key: ("diff", (torch.full((128, 128), 0.02),))}

    def lora(on):
        clone = on.clone()
        assert clone.add_patches(change, 1.0) == [key]
        return clone

    base = sample(patcher, "sd3")
    only = sample(lora(patcher), "sd3")
    assert not torch.equal(base, only)
    before, after = lora(apply(patcher, adapter)), apply(lora(patcher), adapter)
    assert torch.equal(sample(before, "sd3"), sample(after, "sd3"))
    assert torch.equal(sample(apply(lora(patcher), adapter, strength=0.0), "sd3"), only)
    assert torch.equal(sample(patcher, "sd3"), base)


@pytest.mark.parametrize("name", ["sd3", "sd15"])
def test_the_range_of_percents_is_a_range_of_noise_levels(comfy, apply, name):
    from sparsedict.comfyui_host.injection import applied_to, attachments_of

    patcher = loaded(name)
    adapter = make_adapter(patcher)

    def acting(start, end):
        applied = apply(patcher, adapter, start_percent=start, end_percent=end)
        seen = []

        def watch(executor, *args, **kwargs):
            seen.append(attachments_of(applied)[0].enabled)
            return executor(*args, **kwargs)

        applied.add_wrapper("apply_model", watch)
        latents = sample(applied, name, steps=4)
        assert attachments_of(applied)[0].enabled and len(applied_to(applied)) == 1
        return seen, latents

    whole, _ = acting(0.0, 1.0)
    early, first = acting(0.0, 0.5)
    late, second = acting(0.5, 1.0)
    assert whole == [True] * 4
    assert early[0] and not early[-1] and not late[0] and late[-1]
    assert [a != b for a, b in zip(early, late)] == [True] * 4, "two ranges that meet share no step and leave none out"
    assert not torch.equal(first, second)


def test_outside_its_range_an_adapter_is_silent_and_comes_back(comfy, apply):
    from types import SimpleNamespace

    from sparsedict.comfyui_host.injection import applied_to

    applied = apply(loaded("sd3"), make_adapter(loaded("sd3")), start_percent=0.2, end_percent=0.5)
    [one] = applied_to(applied)
    before = hooks(applied)  # another test's model may still be loaded
    one.inject(applied)
    attachment = one.attachment(applied)

    class Executor:
        class_obj = SimpleNamespace(model_sampling=SimpleNamespace(percent_to_sigma=lambda percent: 1 - percent))
        error = None

        def __call__(self, x, sigma):
            if self.error is not None:
                raise self.error
            return attachment.enabled

    executor = Executor()
    levels = {0.9: False, 0.8: True, 0.6: True, 0.5: False, 0.1: False}  # it begins at 1 − 0.2, and has ended at 1 − 0.5
    for level, acts in levels.items():
        assert one.within_range(executor, None, torch.tensor([level], dtype=torch.float64)) is acts, level
        assert attachment.enabled
    executor.error = RuntimeError("stopped")
    with pytest.raises(RuntimeError, match="stopped"):
        one.within_range(executor, None, torch.tensor([0.1]))
    assert attachment.enabled
    one.eject(applied)
    one.eject(applied)
    assert hooks(applied) == before


def test_an_empty_range_is_refused(comfy, apply):
    from sparsedict.sparsedict_core.errors import SparseDictError

    with pytest.raises(SparseDictError, match=r"range 0\.5 to 0\.5 is empty; start must be below end"):
        apply(loaded("sd3"), make_adapter(loaded("sd3")), start_percent=0.5, end_percent=0.5)
