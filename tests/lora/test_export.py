"""A dictionary leaves as a LoRA that the libraries load, and comes back as the same change."""

from __future__ import annotations

import pytest
import torch
from core.newer_denoisers import NEWER
from core.tiny_denoisers import DENOISERS
from lora.lora_files import convolutions, kohya_style, linears, random_lora, write
from lora.test_import import check
from safetensors.torch import load_file

from sparsedict.lora.base import Base
from sparsedict.lora.convert import lora_to_adapter
from sparsedict.lora.exporting import HostModule, export_lora
from sparsedict.sparsedict_core import load, save
from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.compose import compose
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.errors import FileFormatError
from sparsedict.sparsedict_core.folding import SiteSamples
from sparsedict.sparsedict_core.low_rank import linear_config, linear_factors, linear_site, singular_factors
from sparsedict.sparsedict_core.prune import prune
from sparsedict.sparsedict_core.selection import Selection, select
from sparsedict.sparsedict_core.site import SiteName
from sparsedict.sparsedict_core.site_discovery import discover_sites

FAMILIES = {
    "sd15": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline", "sd3": "StableDiffusion3Pipeline", "flux": "FluxPipeline", "wan": "WanPipeline",
    "z_image": "ZImagePipeline", "chroma": "ChromaPipeline",
}  # fmt: skip


def output(model, inputs):
    with torch.no_grad():
        found = model(**inputs)[0]
    return torch.stack(found) if isinstance(found, list) else found  # Z-Image gives a list of pictures


@pytest.fixture(params=FAMILIES)
def case(request, tmp_path):
    """(base, inputs, LoRA file, dictionary)"""
    import diffusers

    torch.manual_seed(0)
    model, inputs = (DENOISERS | NEWER)[request.param][0]()
    model.eval()
    base = Base.of(model, getattr(diffusers, FAMILIES[request.param]))
    lora = random_lora(linears(model), size=0.1)
    path = write(kohya_style(lora, "lora_unet_" if base.component == "unet" else "lora_transformer_"), tmp_path / "lora.safetensors")
    return base, inputs, path, lora_to_adapter(path, base)[0]


def loaded(base, path):
    """The denoiser's state with the LoRA of a file on it, by diffusers and peft."""
    state = base.loader.lora_state_dict(str(path.parent), weight_name=path.name, return_lora_metadata=True, **({"unet_config": base.denoiser.config} if base.component == "unet" else {}))
    settings = state[-1]
    alphas = state[1] if len(state) == 3 else None
    base.denoiser.load_lora_adapter(state[0], prefix=base.component, network_alphas=alphas, metadata=settings and dict(settings), adapter_name="out")


def test_pictures_through_peft(case, tmp_path):
    base, inputs, _, adapter = case
    plain = output(base.denoiser, inputs)
    with adapter.attach(base.denoiser, component=base.component):
        ours = output(base.denoiser, inputs)
    assert not torch.allclose(plain, ours, atol=1e-3)
    out = tmp_path / "out.safetensors"
    report = export_lora(adapter, out, "diffusers", dtype=torch.float32)
    assert report.modules == len(adapter.sites) and not report.errors
    loaded(base, out)
    theirs = output(base.denoiser, inputs)
    base.denoiser.unload_lora()
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_back_and_forth(case, tmp_path):
    base, _, _, adapter = case
    for style in ("kohya", "diffusers", "peft"):
        out = tmp_path / (style if style == "peft" else f"{style}.safetensors")
        export_lora(adapter, out, style, dtype=torch.float32)
        again, _ = lora_to_adapter(out, base)
        assert list(again.sites) == list(adapter.sites)
        for key, site in again.sites.items():
            (down, up), (first_down, first_up) = linear_factors(site), linear_factors(adapter.sites[key])
            whole = first_up @ first_down
            torch.testing.assert_close(up @ down, whole, rtol=1e-6, atol=1e-6 * float(whole.abs().max()))


def test_peft_loads_its_own_folder(tmp_path):
    from peft import PeftModel

    torch.manual_seed(0)
    model, inputs = DENOISERS["sd3"][0]()
    base = Base.of(model.eval())
    adapter, _ = lora_to_adapter(write(kohya_style(random_lora(linears(model), size=0.1)), tmp_path / "lora.safetensors"), base)
    few = prune(adapter, select(adapter, Selection(keep=0.6)))  # of different ranks
    export_lora(few, tmp_path / "folder", "peft", dtype=torch.float32)
    with few.attach(model, component="transformer"):
        ours = output(model, inputs)
    tuned = PeftModel.from_pretrained(model, str(tmp_path / "folder"))
    torch.testing.assert_close(output(tuned, inputs), ours, rtol=1e-4, atol=1e-5)


def test_pruned_composed_and_cut(tmp_path):
    torch.manual_seed(0)
    base = Base.of(DENOISERS["sd15"][0]()[0])
    one, two = (lora_to_adapter(write(kohya_style(random_lora(linears(base.denoiser), seed=seed)), tmp_path / f"{seed}.safetensors"), base)[0] for seed in (1, 2))
    small = prune(one, select(one, Selection(keep=0.5)))
    both = compose([("a", small, 0.5), ("b", two, -1.0)])
    export_lora(both, tmp_path / "both.safetensors", dtype=torch.float32)
    back, _ = lora_to_adapter(tmp_path / "both.safetensors", base)
    for key, site in back.sites.items():
        x = torch.randn(4, site.d_in)
        wanted = -two.sites[key](x) + (0.5 * small.sites[key](x) if small.sites[key].atoms else 0)
        torch.testing.assert_close(site(x), wanted, rtol=1e-4, atol=1e-4)
    report = export_lora(both, tmp_path / "cut.safetensors", rank=2)
    assert report.ranks == (2, 2)


def test_convolutions_keep_their_shape(tmp_path):
    base = Base.of(DENOISERS["sd15"][0]()[0])
    lora = random_lora(convolutions(base.denoiser))
    adapter, _ = lora_to_adapter(write(kohya_style(lora), tmp_path / "in.safetensors"), base)
    for made in (adapter, compose([("a", adapter, 1.0)])):
        export_lora(made, tmp_path / "out.safetensors", dtype=torch.float32, overwrite=True)
        back = load_file(str(tmp_path / "out.safetensors"))
        for path, (down, up) in lora.items():
            name = "lora_unet_" + path.replace(".", "_")
            assert back[f"{name}.lora_down.weight"].shape == down.shape and back[f"{name}.lora_up.weight"].shape == up.shape


def on_slices(tmp_path, sites="q,v"):
    """(denoiser, inputs, linear dictionary on slices of its fused Linears, the changes of whole Linears by path), by way of a file."""
    torch.manual_seed(0)
    model, inputs = NEWER["flux2"][0]()
    found = discover_sites(model.eval(), sites, lambda: model(**inputs))
    names = [name for name in found.sites if name.rows is not None]
    made = SparseAdapter.create(model, names, linear_config(2), found.component, metadata={"base_family": found.family})
    wanted = {}
    for number, name in enumerate(names):
        module = model.get_submodule(name.path.removeprefix("transformer."))
        down, up = torch.randn(1 + number % 3, module.in_features), 0.1 * torch.randn(name.rows[1] - name.rows[0], 1 + number % 3)
        made.sites[name.place] = linear_site(name, *singular_factors(down, up))
        whole = wanted.setdefault(name.path.removeprefix("transformer."), torch.zeros(module.out_features, module.in_features, dtype=torch.float64))
        whole[slice(*name.rows)] += up.double() @ down.double()
    save(made, tmp_path / "dictionary.safetensors", torch.float32)
    return model, inputs, load(tmp_path / "dictionary.safetensors"), wanted


def test_slices_of_a_fused_linear_are_one_module(tmp_path):
    """q and v of a Linear that holds q, k, v and more: the downs are stacked, each up in its own rows, nothing in the others."""
    model, inputs, adapter, wanted = on_slices(tmp_path)
    base = Base.of(model)
    both = compose([("a", adapter, 1.0), ("b", adapter, -0.5)])
    for style, saved, scale in (("kohya", adapter, 1.0), ("diffusers", adapter, 1.0), ("peft", adapter, 1.0), ("diffusers", both, 0.5)):
        out = tmp_path / (style if style == "peft" else f"{style}.safetensors")
        report = export_lora(saved, out, style, dtype=torch.float32, overwrite=True)
        assert report.modules == len(wanted) and not report.fused
        assert scale != 1 or report.ranks == (1 + 2, 3 + 1)  # as many as its slices have together
        check(lora_to_adapter(out, base)[0], {path: scale * change for path, change in wanted.items()})
    with adapter.attach(model, component="transformer"):
        ours = output(model, inputs)
    assert not torch.allclose(output(model, inputs), ours, atol=1e-3)
    export_lora(adapter, tmp_path / "again.safetensors", "diffusers", dtype=torch.float32)
    state = load_file(str(tmp_path / "again.safetensors"))
    model.load_lora_adapter(state, prefix="transformer", adapter_name="out")
    torch.testing.assert_close(output(model, inputs), ours, rtol=1e-4, atol=1e-5)


def test_height_of_a_fused_linear(tmp_path):
    """A dictionary of an older version does not know it: the base does, and without one it is said."""
    model, _, adapter, wanted = on_slices(tmp_path)
    assert set(adapter.metadata.pop("fused")) == set(wanted)
    heights = {path: change.shape[0] for path, change in wanted.items()}
    assert not export_lora(adapter, tmp_path / "known.safetensors", dtype=torch.float32, heights=lambda: heights).fused
    check(lora_to_adapter(tmp_path / "known.safetensors", Base.of(model))[0], wanted)
    for bad in (None, dict.fromkeys(wanted, 7), dict.fromkeys(wanted, 1 << 60), "damaged"):
        adapter.metadata["fused"] = bad
        report = export_lora(adapter, tmp_path / "unknown.safetensors", dtype=torch.float32, overwrite=True)
        path, reach = next(iter(report.fused.items()))
        assert len(report.fused) == len(wanted) and reach < heights[path] and f"{reach} rows that its slices reach" in report.text


@pytest.mark.parametrize("style", ["kohya", "diffusers"])
def test_modules_that_a_host_has_in_one(style, tmp_path):
    """q, k and v are three modules to diffusers and one to a host: in kohya's style the host's, else diffusers'."""
    generator = torch.Generator().manual_seed(0)
    sites, changes = [], []
    for number, role in enumerate(("q", "v", "k")):
        down, up = torch.randn(number + 1, 8, generator=generator), torch.randn(4, number + 1, generator=generator)
        sites.append(linear_site(SiteName(f"transformer.block.0.to_{role}", 0, role), *singular_factors(down, up)))
        changes.append(up @ down)
    adapter = SparseAdapter(sites[:2], linear_config(2), "transformer", {"base_family": "flux"})
    host = {f"block.0.to_{role}": HostModule("block.0.qkv", (4 * number, 4 * number + 4), 14) for number, role in enumerate("qkv")}
    export_lora(adapter, tmp_path / "lora.safetensors", style, dtype=torch.float32, host=host)
    state = load_file(str(tmp_path / "lora.safetensors"))
    if style == "kohya":
        assert {key.split(".")[0] for key in state} == {"lora_unet_block_0_qkv"} and float(state["lora_unet_block_0_qkv.alpha"]) == 3
        found = state["lora_unet_block_0_qkv.lora_up.weight"] @ state["lora_unet_block_0_qkv.lora_down.weight"]
        torch.testing.assert_close(found, torch.cat([changes[0], torch.zeros(4, 8), changes[1], torch.zeros(2, 8)]))
    else:
        assert {key.removesuffix(".weight").rpartition(".")[0] for key in state} == {"transformer.block.0.to_q", "transformer.block.0.to_v"}
        torch.testing.assert_close(state["transformer.block.0.to_v.lora_B.weight"] @ state["transformer.block.0.to_v.lora_A.weight"], changes[1])


def test_nearest_lora_of_a_gated_dictionary(tmp_path):
    """The stated error is that of inputs which the fit has not seen; without inputs it is refused."""
    torch.manual_seed(0)
    base = Base.of(DENOISERS["sd15"][0]()[0])
    found = discover_sites(base.denoiser)
    adapter = SparseAdapter.create(base.denoiser, found.sites[:3], AdapterConfig(atoms=8, rank=None), found.component)
    for site in adapter.sites.values():
        torch.nn.init.normal_(site.dictionary_weight)
    adapter.requires_grad_(False)
    with pytest.raises(FileFormatError, match="thresholds"):
        export_lora(adapter, tmp_path / "no.safetensors")
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileFormatError, match="never at work"):
        export_lora(adapter, tmp_path / "no.safetensors", samples=dict)
    assert not list(tmp_path.iterdir())
    inputs = {key: SiteSamples(torch.randn(400, site.d_in), torch.zeros(0)) for key, site in adapter.sites.items()}
    report = export_lora(adapter, tmp_path / "near.safetensors", dtype=torch.float32, samples=lambda: inputs)
    assert set(report.errors) == set(adapter.sites) and 0.2 < report.error < 0.9
    back, _ = lora_to_adapter(tmp_path / "near.safetensors", base)
    missed = whole = 0.0
    for key, site in adapter.sites.items():
        x = torch.randn(2000, site.d_in)
        missed, whole = missed + float((site(x) - back.sites[key](x)).square().sum()), whole + float(site(x).square().sum())
    assert (missed / whole) ** 0.5 == pytest.approx(report.error, abs=0.1)
    assert f"{report.error:.1%}" in report.text


def test_diffusers_loads_a_lora_whose_text_encoder_came_with_it(tmp_path):
    """Saved by diffusers with its settings, in as a dictionary, and out again: the same pictures' and text's change."""
    import tiny_pipelines
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    folder = tiny_pipelines.save_tiny("sd15", tmp_path / "base")
    pipe = StableDiffusionPipeline.from_pretrained(str(folder))
    parts = {"unet": (pipe.unet, ["to_q", "to_out.0"]), "text_encoder": (pipe.text_encoder, ["q_proj"])}
    for module, targets in parts.values():
        module.add_adapter(LoraConfig(r=2, lora_alpha=8, target_modules=targets, init_lora_weights=False))
    settings = {f"{name}_lora_adapter_metadata": module.peft_config["default"].to_dict() for name, (module, _) in parts.items()}
    layers = {f"{name}_lora_layers": get_peft_model_state_dict(module) for name, (module, _) in parts.items()}
    StableDiffusionPipeline.save_lora_weights(str(tmp_path / "saved"), **layers, **settings)
    adapter, _ = lora_to_adapter(tmp_path / "saved", Base.of(StableDiffusionPipeline.from_pretrained(str(folder)).unet))
    export_lora(adapter, tmp_path / "out.safetensors", "diffusers", dtype=torch.float32)

    def at_work(file):
        loaded = StableDiffusionPipeline.from_pretrained(str(folder))
        if file is not None:
            loaded.load_lora_weights(file)
        text = loaded.text_encoder(torch.arange(6)[None])[0]
        noise = torch.randn(1, loaded.unet.config.in_channels, 8, 8, generator=torch.Generator().manual_seed(0))
        return text, loaded.unet(noise, torch.tensor(5), text).sample

    with torch.no_grad():
        base, original, back = (at_work(file) for file in (None, tmp_path / "saved", tmp_path / "out.safetensors"))
    for bare, one, other in zip(base, original, back, strict=True):
        assert not torch.allclose(bare, one, atol=1e-3)
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)
