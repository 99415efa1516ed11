"""Every spelling of a LoRA becomes the same dictionary, and its change is the LoRA's."""

from __future__ import annotations

import re

import pytest
import torch
from core.tiny_denoisers import DENOISERS
from lora.lora_files import changes, convolutions, kohya_style, linears, old_diffusers_style, peft_style, random_lora, sgm_name, write

from sparsedict.lora.base import Base
from sparsedict.lora.convert import lora_to_adapter
from sparsedict.sparsedict_core.low_rank import linear_factors


def check(adapter, wanted, tolerance=1e-6):
    """The dictionary holds exactly the `wanted` changes by path, to fp32 rounding."""
    found = {}
    for site in adapter.sites.values():
        down, up = linear_factors(site)
        found[site.name.path.partition(".")[2]] = up @ down
    assert set(found) == set(wanted)
    for path, change in wanted.items():
        torch.testing.assert_close(found[path], change.detach(), rtol=tolerance, atol=tolerance * float(change.detach().abs().max()))


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux", "wan", "qwen_image"])
def test_names_that_are_paths(family, tmp_path):
    model, _ = DENOISERS[family][0]()
    base = Base.of(model)
    lora = random_lora(linears(model))
    files = {
        "diffusers": (peft_style(lora, base.component), 1.0),
        "peft": (peft_style(lora, "base_model.model"), 1.0),
        "kohya": (kohya_style(lora), 0.5),
        "OneTrainer": (kohya_style(lora, "lora_transformer_"), 0.5),
        "LyCORIS": (kohya_style(lora, "lycoris_"), 0.5),
        "dotted down and up": ({f"{base.component}.{key}": tensor for key, tensor in kohya_style(lora, "", dotted=True).items()}, 0.5),
        "no alpha": (kohya_style(lora, alpha=None), 1.0),
    }
    for name, (tensors, scale) in files.items():
        adapter, report = lora_to_adapter(write(tensors, tmp_path / f"{name}.safetensors"), base)
        check(adapter, changes(lora, scale))
        assert not report.aside and report.sites == len(lora)
        assert report.without_alpha == (len(lora) if scale == 1.0 else 0)


def test_original_unet_names(tmp_path):
    """kohya's SDXL: input_blocks, middle_block, output_blocks, and the convolutions of LoCon."""
    import diffusers

    model, _ = DENOISERS["sdxl"][0]()
    base = Base.of(model, diffusers.StableDiffusionXLPipeline)
    lora = random_lora(linears(model) | convolutions(model))
    tensors = kohya_style(lora, rename=lambda path: sgm_name(path, model.config.layers_per_block))
    tensors |= {"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(1, 4), "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.ones(4, 1)}
    adapter, report = lora_to_adapter(write(tensors, tmp_path / "sgm.safetensors"), base)
    check(adapter, changes(lora, 0.5))
    assert report.text_encoder == 2 and not report.aside


def test_old_diffusers_names(tmp_path):
    import diffusers

    model, _ = DENOISERS["sd15"][0]()
    base = Base.of(model, diffusers.StableDiffusionPipeline)
    lora = random_lora(linears(model, ("attn1.to_q", "attn2.to_out.0")))
    adapter, _ = lora_to_adapter(write(old_diffusers_style(lora), tmp_path / "old.safetensors"), base)
    check(adapter, changes(lora))


def test_wan_original_names(tmp_path):
    """ai-toolkit's and musubi's: blocks.N.self_attn.q and ffn.0."""
    import diffusers

    model, _ = DENOISERS["wan"][0]()
    base = Base.of(model, diffusers.WanPipeline)
    lora = random_lora(linears(model))

    def original(path):
        path = path.replace("attn1.", "self_attn.").replace("attn2.", "cross_attn.").replace("to_out.0", "to_o").replace("ffn.net.0.proj", "ffn.0").replace("ffn.net.2", "ffn.2")
        return re.sub(r"\.to_(\w)", r".\1", path)

    toolkit = {f"diffusion_model.{original(path)}.lora_{side}.weight": tensor for path, pair in lora.items() for side, tensor in zip("AB", pair)}
    for name, tensors, scale in (("ai-toolkit", toolkit, 1.0), ("musubi", kohya_style(lora, rename=original), 0.5)):
        adapter, _ = lora_to_adapter(write(tensors, tmp_path / f"{name}.safetensors"), base)
        check(adapter, changes(lora, scale))


def test_z_image_names(tmp_path):
    """Both that diffusers reads: the original's with a fused qkv, and its own under kohya's prefix."""
    import diffusers

    model = z_image()
    base = Base.of(model, diffusers.ZImagePipeline)
    lora = random_lora(linears(model))
    adapter, _ = lora_to_adapter(write(kohya_style(lora), tmp_path / "kohya.safetensors"), base)
    check(adapter, changes(lora, 0.5))
    wanted, tensors = {}, {}
    for number, (path, (down, up)) in enumerate(lora.items()):
        if path.endswith(".to_q"):
            block = path.removesuffix(".to_q")
            fused = torch.randn(3 * up.shape[0], up.shape[1], generator=torch.Generator().manual_seed(number))
            tensors[f"diffusion_model.{block}.qkv.lora.down.weight"], tensors[f"diffusion_model.{block}.qkv.lora.up.weight"] = down, fused
            wanted |= {f"{block}.to_{letter}": rows.double() @ down.double() for letter, rows in zip("qkv", fused.chunk(3))}
    adapter, _ = lora_to_adapter(write(tensors, tmp_path / "fused.safetensors"), base)
    check(adapter, wanted)


def z_image():
    from diffusers import ZImageTransformer2DModel

    return ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=12, axes_dims=[4, 6, 6], axes_lens=[32, 32, 32]
    )


def test_flux_in_real_widths(tmp_path):
    """kohya's Flux, with fused q, k, v and MLP: diffusers' converter knows the real widths only, so the model is one without weights."""
    import diffusers

    with torch.device("meta"):
        model = diffusers.FluxTransformer2DModel(num_layers=1, num_single_layers=1)
    base = Base.of(model, diffusers.FluxPipeline)
    generator = torch.Generator().manual_seed(0)

    def pair(d_in, d_out):
        return torch.randn(2, d_in, generator=generator), torch.randn(d_out, 2, generator=generator)

    lora = {
        "double_blocks.0.img_attn.qkv": pair(3072, 9216), "double_blocks.0.txt_attn.proj": pair(3072, 3072), "double_blocks.0.img_mlp.0": pair(3072, 12288),
        "single_blocks.0.linear1": pair(3072, 21504), "single_blocks.0.linear2": pair(15360, 3072),
    }  # fmt: skip
    adapter, report = lora_to_adapter(write(kohya_style(lora, alpha=1.0), tmp_path / "flux.safetensors"), base)
    assert report.kinds == {"lora": 5} and report.sites == 3 + 1 + 1 + 4 + 1
    down, up = lora["single_blocks.0.linear1"]
    for path, start, stop in (("attn.to_k", 3072, 6144), ("proj_mlp", 9216, 21504)):
        site = adapter.sites[f"transformer.single_transformer_blocks.0.{path}"]
        ours, theirs = linear_factors(site), (down.double(), 0.5 * up[start:stop].double())
        x = torch.randn(5, 3072, dtype=torch.float64, generator=generator)
        torch.testing.assert_close(x @ ours[0].T @ ours[1].T, x @ theirs[0].T @ theirs[1].T, rtol=1e-5, atol=1e-3)


def test_chroma_names(tmp_path):
    import diffusers

    model = diffusers.ChromaTransformer2DModel(
        in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=12, axes_dims_rope=(4, 6, 6),
        approximator_num_channels=8, approximator_hidden_dim=8, approximator_layers=1,
    )  # fmt: skip
    base = Base.of(model, diffusers.ChromaPipeline)
    lora = random_lora(linears(model))
    adapter, _ = lora_to_adapter(write(peft_style(lora, "transformer"), tmp_path / "chroma.safetensors"), base)
    check(adapter, changes(lora))


def test_scale_from_peft_settings(tmp_path):
    """peft's own folder, and diffusers' file with the settings inside: alpha, a pattern, rank-stabilised scale."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    base = Base.of(DENOISERS["sd3"][0]()[0])
    for stabilised in (False, True):
        config = LoraConfig(r=2, lora_alpha=6, target_modules=["to_q", "to_add_out"], alpha_pattern={"to_add_out": 1}, use_rslora=stabilised, init_lora_weights=False)
        tuned = get_peft_model(DENOISERS["sd3"][0]()[0], config)
        folder = tmp_path / f"peft{stabilised}"
        tuned.save_pretrained(str(folder))
        wanted = {
            path.removeprefix("base_model.model."): module.get_delta_weight("default").double()
            for path, module in tuned.named_modules() if hasattr(module, "lora_A") and len(module.lora_A)
        }  # fmt: skip
        adapter, report = lora_to_adapter(folder, base)
        check(adapter, wanted, 1e-5)
        assert report.without_alpha == 0
        assert len(get_peft_model_state_dict(tuned)) == 2 * report.sites


def test_each_component_has_its_own_scale(tmp_path):
    """diffusers notes a text encoder's alpha beside the denoiser's; what is kept aside is scaled by its own."""
    import json

    base = Base.of(DENOISERS["sd15"][0]()[0])
    lora = random_lora(linears(base.denoiser))
    text = {"text_encoder.text_model.x": (torch.ones(2, 4), torch.ones(4, 2))}
    tensors = peft_style(lora, "unet") | kohya_style(text, "", alpha=None, dotted=True)
    settings = json.dumps({"unet.r": 3, "unet.lora_alpha": 6, "text_encoder.r": 2, "text_encoder.lora_alpha": 1})
    adapter, _ = lora_to_adapter(write(tensors, tmp_path / "lora.safetensors", lora_adapter_metadata=settings), base)
    check(adapter, changes(lora, 2.0))
    assert torch.equal(adapter.aside["text_encoder.text_model.x.lora_up.weight"], torch.full((4, 2), 0.5))


def with_text_encoder(tensors, prefix="lora_te1_text_model_encoder_layers_0_mlp_fc1"):
    more = {f"{prefix}.lora_down.weight": torch.randn(1, 4).double(), f"{prefix}.lora_up.weight": torch.randn(4, 1).half(), f"{prefix}.alpha": torch.tensor(0.5)}
    return tensors | more, more


def test_streamed_is_the_same_file(tmp_path):
    """Site by site into a file: the same dictionary as by way of memory, text encoders' tensors and all."""
    from sparsedict.lora.convert import convert_file
    from sparsedict.sparsedict_core import load, save

    base = Base.of(DENOISERS["sd15"][0]()[0])
    tensors, text = with_text_encoder(kohya_style(random_lora(linears(base.denoiser))))
    path = write(tensors, tmp_path / "lora.safetensors")
    for dtype in (torch.float32, torch.float16):
        saved, report = convert_file(path, base, tmp_path / "streamed.safetensors", dtype=dtype, overwrite=True)
        adapter, other = lora_to_adapter(path, base, dtype=dtype)
        save(adapter, tmp_path / "whole.safetensors", dtype, overwrite=True)
        one, two = load(tmp_path / "streamed.safetensors"), load(tmp_path / "whole.safetensors")
        # The tensors stand in another order.
        hashes = [made.metadata.pop("modelspec.hash_sha256") for made in (one, two)]
        assert all(text.startswith("0x") and len(text) == 66 for text in hashes)
        assert one.metadata == two.metadata and list(one.sites) == list(two.sites) and report.text == other.text
        for key, site in one.sites.items():
            assert all(torch.equal(a, b) for a, b in zip(site.state_dict().values(), two.sites[key].state_dict().values(), strict=True))
        assert set(one.aside) == set(text) and all(torch.equal(one.aside[key].double(), text[key].double()) for key in text)
        assert saved.bytes == (tmp_path / "streamed.safetensors").stat().st_size
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lora.safetensors", "streamed.safetensors", "whole.safetensors"]


def test_text_encoders_leave_with_the_lora(tmp_path):
    from safetensors.torch import load_file

    from sparsedict.lora.exporting import export_lora

    base = Base.of(DENOISERS["sd15"][0]()[0])
    tensors, text = with_text_encoder(kohya_style(random_lora(linears(base.denoiser))))
    adapter, report = lora_to_adapter(write(tensors, tmp_path / "lora.safetensors"), base)
    assert report.text_encoder == 3 and not report.aside
    out = export_lora(adapter.clone(), tmp_path / "kohya.safetensors")
    assert not out.left_out and set(text) <= set(load_file(str(tmp_path / "kohya.safetensors")))
    out = export_lora(adapter, tmp_path / "diffusers.safetensors", "diffusers")
    assert out.left_out == 3 and "left out" in out.text


def test_three_text_encoders_of_sd3(tmp_path):
    """kohya's te1, te2 and te3 are kept and counted; they leave in kohya's style, and in another it is said that they do not."""
    from safetensors.torch import load_file

    from sparsedict.lora.exporting import export_lora

    base = Base.of(DENOISERS["sd3"][0]()[0])
    tensors, text = kohya_style(random_lora(linears(base.denoiser))), {}
    for name in ("te1_text_model_encoder_layers_0_mlp_fc1", "te2_text_model_encoder_layers_0_mlp_fc1", "te3_encoder_block_0_layer_0_SelfAttention_q"):
        tensors, more = with_text_encoder(tensors, f"lora_{name}")
        text |= more
    adapter, report = lora_to_adapter(write(tensors, tmp_path / "lora.safetensors"), base)
    assert report.text_encoder == 9 and "9 tensors of text encoders" in report.text and not report.aside
    out = export_lora(adapter, tmp_path / "kohya.safetensors")
    assert not out.left_out and set(text) <= set(load_file(str(tmp_path / "kohya.safetensors")))
    for style in ("diffusers", "peft"):
        out = export_lora(adapter, tmp_path / (style if style == "peft" else f"{style}.safetensors"), style)
        assert out.left_out == 9 and f"9 tensors of the LoRA that the dictionary came from are left out, as {style}" in out.text


def test_names_of_other_tensors_are_shown_escaped_and_short(tmp_path):
    base = Base.of(DENOISERS["sd15"][0]()[0])
    for name in ("zz\x1b]0;owned\x07\u202e", "z" * 300_000):
        tensors = kohya_style(random_lora(linears(base.denoiser))) | {name: torch.zeros(1)}
        _, report = lora_to_adapter(write(tensors, tmp_path / "lora.safetensors"), base)
        assert report.text.replace("\n", "").isprintable() and len(report.text) < 2000
