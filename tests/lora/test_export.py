"""A dictionary leaves as a LoRA that the libraries load, and comes back as the same change."""

from __future__ import annotations

import pytest
import torch
from core.newer_denoisers import NEWER
from core.tiny_denoisers import DENOISERS
from lora.lora_files import convolutions, kohya_style, linears, random_lora, write

from sparsedict.lora.base import Base
from sparsedict.lora.convert import lora_to_adapter
from sparsedict.lora.exporting import export_lora
from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.compose import compose
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.errors import FileFormatError
from sparsedict.sparsedict_core.folding import SiteSamples
from sparsedict.sparsedict_core.low_rank import linear_config, linear_factors, linear_site, singular_factors
from sparsedict.sparsedict_core.prune import prune
from sparsedict.sparsedict_core.selection import Selection, select
from sparsedict.sparsedict_core.site import SiteName

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
    export_lora(adapter, tmp_path / "out.safetensors", dtype=torch.float32)
    from safetensors.torch import load_file

    back = load_file(str(tmp_path / "out.safetensors"))
    for path, (down, up) in lora.items():
        name = "lora_unet_" + path.replace(".", "_")
        assert back[f"{name}.lora_down.weight"].shape == down.shape and back[f"{name}.lora_up.weight"].shape == up.shape


def test_slices_of_a_fused_linear_are_told(tmp_path):
    """The dictionary does not know how many rows come after its last slice."""
    down, up = torch.randn(2, 8), torch.randn(4, 2)
    sites = [linear_site(SiteName("transformer.block.to_qkv_mlp_proj", 0, stream, rows), *singular_factors(down, up)) for stream, rows in (("q", (0, 4)), ("v", (8, 12)))]
    adapter = SparseAdapter(sites, linear_config(2), "transformer", {"base_family": "flux2"})
    report = export_lora(adapter, tmp_path / "lora.safetensors", dtype=torch.float32)
    assert report.fused == {"block.to_qkv_mlp_proj": 12} and "12 rows that its slices reach" in report.text


def test_nearest_lora_of_a_gated_dictionary(tmp_path):
    """The stated error is that of inputs which the fit has not seen; without inputs it is refused."""
    torch.manual_seed(0)
    base = Base.of(DENOISERS["sd15"][0]()[0])
    from sparsedict.sparsedict_core.site_discovery import discover_sites

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
