"""What a LoRA holds beside the denoiser's layers, in the real host: by its own loader, on a CLIP and on norms."""

from __future__ import annotations

import logging

import host_adapters
import pytest
import tiny_models
import torch
from lora.lora_files import kohya_style, write
from node_calls import run
from safetensors.torch import load_file
from test_lora import kohya_file

from sparsedict.comfyui_host.lora import import_lora
from sparsedict.comfyui_host.sites import diffusion_model

FAMILY = "sd15"


@pytest.fixture(scope="module")
def clip(comfy):
    """The host's CLIP-L, small and random."""
    import comfy.sd
    import comfy.sd1_clip
    import comfy.supported_models_base

    small = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "projection_dim": 32}
    target = comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel)
    made = comfy.sd.CLIP(target, model_options={"clip_l_model_config": small, "dtype": torch.float32})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in made.cond_stage_model.named_parameters():
            if parameter.ndim < 2:  # the host leaves what it allocates as it is
                parameter.fill_(float(name.endswith("weight")))
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5)
    return made


@pytest.fixture
def case(clip, tmp_path):
    """(MODEL, a LoRA's file with parts for the denoiser, the text encoder and a norm, the dictionary of it)"""
    from sparsedict.nodes.socket import SparseDict

    patcher = host_adapters.loaded(FAMILY)
    tensors = load_file(str(kohya_file(patcher, tmp_path / "denoiser.safetensors")))
    generator = torch.Generator().manual_seed(4)
    words = {f"text_model.encoder.layers.{n}.{end}": (torch.randn(2, 32, generator=generator) / 6, torch.randn(32, 2, generator=generator)) for n in (0, 1) for end in ("self_attn.q_proj", "mlp.fc1")}
    norm = next(name for name, module in diffusion_model(patcher).named_modules() if name.endswith("norm1") and any(c.isdigit() for c in name))
    size = diffusion_model(patcher).get_submodule(norm).weight.shape
    tensors |= kohya_style(words, "lora_te_") | {f"diffusion_model.{norm}.diff": torch.full(size, 0.5), f"diffusion_model.{norm}.diff_b": torch.full(size, 0.3)}
    path = write(tensors, tmp_path / "all.safetensors")
    adapter, report = import_lora(path, patcher, 64)
    assert report.text_encoder == 12 and len(report.aside) == 2
    return patcher, path, SparseDict(adapter, "all")


def theirs(patcher, clip, path, strength=1.0):
    import comfy.sd
    import comfy.utils

    return comfy.sd.load_lora_for_models(patcher, clip, comfy.utils.load_torch_file(str(path)), strength, strength)


def picture(patcher, clip, nodes):
    """By the host's own nodes; the small CLIP's words are repeated to the width that the model takes."""
    import nodes as host_nodes

    with torch.inference_mode():
        said = host_nodes.CLIPTextEncode().encode(clip, "a zorp on a beach")[0]
        wide = [[said[0][0].repeat(1, 1, 768 // said[0][0].shape[-1]), {}]]
        return host_nodes.common_ksampler(patcher, 3, 2, 3.0, "euler", "normal", wide, wide, tiny_models.latent(FAMILY))[0]["samples"]


@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_pictures_are_the_hosts_own(case, clip, nodes, strength):
    patcher, path, value = case
    base, wanted = picture(patcher, clip, nodes), picture(*theirs(patcher, clip, path, strength), nodes)
    model, words = run(nodes, "SparseDictApply", model=patcher, sparse_dict=value, strength=strength, start_percent=0.0, end_percent=1.0, clip=clip)
    # fp32 rounding through two steps of a random network.
    tolerance = 1e-3 * float(wanted.abs().max())
    torch.testing.assert_close(picture(model, words, nodes), wanted, rtol=1e-3, atol=tolerance)
    assert float((picture(model, clip, nodes) - wanted).abs().max()) > 10 * tolerance, "the text encoder's part is not seen"
    assert torch.equal(picture(patcher, clip, nodes), base)


def test_strength_0_and_no_atom_are_the_base(case, clip, nodes):
    patcher, _, value = case
    base = picture(patcher, clip, nodes)
    none = value.with_gains({key: torch.zeros(site.atoms) for key, site in value.adapter.sites.items()})
    for one, strength in ((value, 0.0), (none, 1.0)):
        model, words = run(nodes, "SparseDictApply", model=patcher, sparse_dict=one, strength=strength, start_percent=0.0, end_percent=1.0, clip=clip)
        assert words is clip and torch.equal(picture(model, words, nodes), base)


def test_the_loader_reads_it_from_a_file(case, clip, nodes, tmp_path):
    import folder_paths

    from sparsedict.sparsedict_core import save

    patcher, path, value = case
    folder = folder_paths.get_folder_paths("sparse_dicts")[0]
    save(value.adapter, f"{folder}/was_a_lora.safetensors", torch.float32, overwrite=True)
    model, words = run(nodes, "SparseDictLoader", model=patcher, file="was_a_lora.safetensors", strength=1.0, share=1.0, clip=clip)
    wanted = picture(*theirs(patcher, clip, path), nodes)
    torch.testing.assert_close(picture(model, words, nodes), wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


def test_without_a_clip_it_is_said(case, nodes, caplog):
    patcher, _, value = case
    with caplog.at_level(logging.WARNING):
        _, words = run(nodes, "SparseDictApply", model=patcher, sparse_dict=value, strength=1.0, start_percent=0.0, end_percent=1.0)
    assert words is None and any("12 tensors for text encoders" in record.message and "connect" in record.message for record in caplog.records)
