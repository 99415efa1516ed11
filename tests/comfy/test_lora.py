"""LoRAs in the real host: what it does with a file itself, and what the dictionary made of that file does."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace

import host_adapters
import pytest
import tiny_models
import torch
from lora.bad_files import NAMES, make, words_of
from lora.lora_files import kohya_style, write
from node_calls import run
from safetensors.torch import load_file

from sparsedict.comfyui_host.injection import apply_adapter
from sparsedict.comfyui_host.lora import base_places, host_modules, import_lora
from sparsedict.comfyui_host.sites import diffusion_model
from sparsedict.lora.exporting import export_lora
from sparsedict.sparsedict_core.errors import FileFormatError
from sparsedict.sparsedict_core.low_rank import linear_factors

FAMILIES = ("sd3", "sd15", "wan")
INSIDE = ("attn", "attention", "mlp", "ffn", "ff.net", "feed_forward", "linear1", "linear2", "in_layers.2", "skip_connection")


def adapted(patcher, every=1):
    """The host's Linears and convolutions inside blocks, by its own names, fused ones too."""
    found = {
        name: module for name, module in diffusion_model(patcher).named_modules()
        if getattr(module, "weight", None) is not None and module.weight.ndim in (2, 4) and any(part in name for part in INSIDE) and any(c.isdigit() for c in name)
    }  # fmt: skip
    return dict(list(found.items())[::every])


def kohya_file(patcher, path, every=3, size=0.3, alpha=1.0):
    generator = torch.Generator().manual_seed(0)
    lora = {}
    for name, module in adapted(patcher, every).items():
        weight = module.weight
        more = (1,) * (weight.ndim - 2)
        down = torch.randn(2, *weight.shape[1:], generator=generator) / weight[0].numel() ** 0.5
        lora[name] = down, size * torch.randn(weight.shape[0], 2, *more, generator=generator)
    return write(kohya_style(lora, alpha=alpha), path)


def by_the_host(patcher, path, strength=1.0):
    import comfy.sd
    import comfy.utils

    with torch.inference_mode():
        return comfy.sd.load_lora_for_models(patcher, None, comfy.utils.load_torch_file(str(path)), strength, 0.0)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_are_the_hosts_own(comfy, family, tmp_path):
    patcher = host_adapters.loaded(family)
    path = kohya_file(patcher, tmp_path / "lora.safetensors")
    base = tiny_models.sample(patcher, family)
    adapter, report = import_lora(path, patcher, 64)
    assert not report.aside and report.kinds["lora"] == len(adapted(patcher, 3))
    theirs = tiny_models.sample(by_the_host(patcher, path), family)
    ours = tiny_models.sample(apply_adapter(patcher, adapter), family)
    assert float((theirs - base).abs().max()) > 1e-2
    # fp32 rounding through two steps of a random network.
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))
    # And out again, under the host's own names and under diffusers'.
    for style in ("kohya", "diffusers"):
        if style == "diffusers" and family in ("wan", "sd15"):
            continue  # names that this host's loader does not know, or knows in an older spelling
        out = tmp_path / f"{style}.safetensors"
        export_lora(adapter, out, style, dtype=torch.float32, host=host_modules(patcher))
        if style == "kohya":  # parts of a fused module in one, as kohya's tools want it
            assert {key.split(".")[0] for key in load_file(str(out))} == {key.split(".")[0] for key in load_file(str(path))}
        again = tiny_models.sample(by_the_host(patcher, out), family)
        torch.testing.assert_close(again, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


def outlines():
    """(family, MODEL) of families that the tiny models lack: the host's own classes, never run."""
    import comfy.ldm.flux.model
    import comfy.ldm.lumina.model
    import comfy.model_base
    import comfy.ops

    made = {"device": "cpu", "dtype": torch.float32, "operations": comfy.ops.disable_weight_init}
    flux = {"hidden_size": 32, "depth": 1, "depth_single_blocks": 1}
    settings = tiny_models.flux_settings(
        in_channels=4, out_channels=4, vec_in_dim=8, context_in_dim=12, mlp_ratio=4.0, num_heads=2, axes_dim=[4, 6, 6], guidance_embed=True, **flux
    )
    z_image = {"dim": 32, "n_layers": 1, "n_refiner_layers": 1, "pad_tokens_multiple": 32}
    models = {
        "flux": (comfy.model_base.Flux, comfy.ldm.flux.model.Flux(**{**settings, **made}), flux),
        "z_image": (
            comfy.model_base.Lumina2,
            comfy.ldm.lumina.model.NextDiT(
                patch_size=2, in_channels=4, n_heads=2, n_kv_heads=2, axes_dims=[4, 6, 6], axes_lens=[32, 32, 32], qk_norm=True, cap_feat_dim=12,
                z_image_modulation=True, **z_image, **made,
            ),
            z_image,
        ),
    }  # fmt: skip
    for family, (kind, denoiser, config) in models.items():
        model = kind.__new__(kind)
        torch.nn.Module.__init__(model)
        model.diffusion_model, model.model_config = denoiser, SimpleNamespace(unet_config=config)
        yield family, SimpleNamespace(model=model)


def test_every_weight_of_flux_and_the_like(comfy, tmp_path):
    """What the host would add to each weight, and what the sites add to their slices of it: fused q, k, v and MLP too."""
    import comfy.lora
    import comfy.utils
    for family, patcher in outlines():
        path = kohya_file(patcher, tmp_path / f"{family}.safetensors", every=1)
        adapter, report = import_lora(path, patcher, 64)
        assert not report.aside, family
        patches = comfy.lora.load_lora(comfy.utils.load_torch_file(str(path)), comfy.lora.model_lora_keys_unet(patcher.model, {}))
        wanted = {}
        for key, patch in patches.items():
            weight = patcher.model.state_dict()[key]
            wanted[key.removeprefix("diffusion_model.").removesuffix(".weight")] = patch.calculate_weight(torch.zeros(weight.shape), key, 1.0, 1.0, None, lambda x: x)
        inside = {id(module): name for name, module in diffusion_model(patcher).named_modules()}
        from sparsedict.comfyui_host.sites import modules_for

        for key, place in modules_for(adapter, patcher).items():
            down, up = linear_factors(adapter.sites[key])
            whole = wanted[inside[id(place.module)]].flatten(1)
            whole[slice(*place.rows) if place.rows else slice(None)] -= (up @ down).float()
        for name, left in wanted.items():
            assert float(left.abs().max()) < 1e-4, (family, name)


def test_parts_of_fused_layers_by_number(comfy, tmp_path):
    """OneTrainer's OMI names, which the host itself does not know."""
    pairs = {"img_attn.qkv.2": "attn.to_v", "txt_attn.qkv.0": "attn.add_q_proj", "img_mlp.0": "ff.net.0.proj"}
    patcher = dict(outlines())["flux"]
    lora = {f"transformer.double_blocks.0.{name}": (torch.ones(1, 32), torch.ones(128 if "mlp" in name else 32, 1)) for name in pairs}
    lora["transformer.single_blocks.0.linear1.3"] = torch.ones(1, 32), torch.ones(128, 1)
    adapter, report = import_lora(write(kohya_style(lora, "", dotted=True), tmp_path / "omi.safetensors"), patcher, 64)
    wanted = {f"transformer.transformer_blocks.0.{path}" for path in pairs.values()} | {"transformer.single_transformer_blocks.0.proj_mlp"}
    assert set(adapter.sites) == wanted and not report.aside


def test_what_the_hosts_own_trainer_writes(comfy, tmp_path):
    """TrainLoraNode adapts every matrix, and norms and biases, which no dictionary holds: these are kept, named, and put on by the host's loader."""
    from safetensors.torch import save_file

    host = nodes_train()
    if "bypass_mode" in inspect.signature(host.TrainLoraNode.execute).parameters:
        pytest.skip("this host's trainer takes models of its own loaders only, and writes the same files")
    one = {
        "model": tiny_models.load("sd3"), "batch_size": 1, "steps": 1, "grad_accumulation_steps": 1, "learning_rate": 1e-2, "rank": 2, "optimizer": "Adam",
        "loss_function": "MSE", "seed": 1, "training_dtype": "bf16", "lora_dtype": "fp32", "algorithm": next(iter(host.adapter_maps)),
        "gradient_checkpointing": False, "existing_lora": "[None]",
    }  # fmt: skip
    with torch.inference_mode():
        made = host.TrainLoraNode.execute(
            # A single LATENT fails on 0.3.75.
            latents=[tiny_models.latent("sd3", seed=seed) for seed in (0, 1)], positive=[tiny_models.conditioning("sd3", seed) for seed in (1, 2)],
            **{name: [value] for name, value in one.items()},
        )
    tensors = {key: tensor.clone() for key, tensor in made.args[1].items()}
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, str(tmp_path / "host.safetensors"))
    patcher = host_adapters.loaded("sd3")
    adapter, report = import_lora(tmp_path / "host.safetensors", patcher, 64)
    assert 20 < report.kinds["lora"] < len(adapter.sites)  # the host's fused q, k, v are three sites
    assert report.aside and "were kept as they are" in report.text
    theirs = tiny_models.sample(by_the_host(patcher, tmp_path / "host.safetensors"), "sd3")
    torch.testing.assert_close(tiny_models.sample(apply_adapter(patcher, adapter), "sd3"), theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


def nodes_train():
    """The host's file of training nodes, which is no package's module."""
    import comfy_extras.nodes_train

    return comfy_extras.nodes_train


def test_files_of_another_model(comfy, tmp_path):
    path = kohya_file(host_adapters.loaded("wan"), tmp_path / "wan.safetensors")
    with pytest.raises(FileFormatError, match="none of its") as caught:
        import_lora(path, host_adapters.loaded("sd3"), 64)
    assert "wan" in str(caught.value) and "sd3" in str(caught.value)


def test_names_are_those_of_the_file_of_diffusers(comfy):
    """One dictionary for both: the sites of a LoRA in the host have the paths that diffusers has for them."""
    places = base_places(host_adapters.loaded("sd3"))
    assert {"transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.add_v_proj", "transformer_blocks.0.ff.net.0.proj"} <= set(places.widths)
    assert places.names()["transformer_blocks.1.attn.to_q"].stream == "image.q"


def test_nodes(comfy, nodes, tmp_path):
    import folder_paths

    patcher = host_adapters.loaded("sd3")
    folder = Path(folder_paths.get_folder_paths("loras")[0])
    folder.mkdir(parents=True, exist_ok=True)
    kohya_file(patcher, folder / "some.safetensors")
    value, text = run(nodes, "SparseDictFromLora", model=patcher, lora="some.safetensors", rank=64, allow_part=False)
    assert "atoms" in text and value.name == "some"
    words, empty = tiny_models.conditioning("sd3"), tiny_models.latent("sd3")
    ordered, _ = run(nodes, "SparseDictFromLora", model=patcher, lora="some.safetensors", rank=64, allow_part=False, positive=words, latent_image=empty)
    assert any(not torch.equal(site.importance, value.adapter.sites[key].importance) for key, site in ordered.adapter.sites.items())
    saving = {"folder": "models/loras", "existing": "overwrite", "style": "kohya", "rank": 0, "precision": "fp32"}
    saved, text = run(nodes, "SparseDictSaveAsLora", sparse_dict=value, model=patcher, filename="again", **saving)
    assert "rounding" in text
    first, second = (tiny_models.sample(by_the_host(patcher, path), "sd3") for path in (folder / "some.safetensors", saved))
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3 * float(first.abs().max()))
    from node_calls import make_value

    gated = make_value(patcher)
    with pytest.raises(FileFormatError, match="thresholds"):
        run(nodes, "SparseDictSaveAsLora", sparse_dict=gated, model=patcher, filename="near", **saving)
    _, text = run(nodes, "SparseDictSaveAsLora", sparse_dict=gated, model=patcher, positive=words, latent_image=empty, filename="near", **saving)
    assert "nearest LoRA" in text and "%" in text


@pytest.fixture(scope="module")
def demo(comfy):
    from sparsedict.comfyui_host.demo_base import load_model

    return load_model()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_lora_for_the_base(name, demo, nodes):
    """The node says what the command line says."""
    import folder_paths

    folder = Path(folder_paths.get_folder_paths("loras")[0])
    folder.mkdir(parents=True, exist_ok=True)
    path, words = make(name, folder), words_of(name)
    call = {"model": demo, "lora": path.name, "rank": 64, "allow_part": False}
    if words is None:
        assert "352 atoms at 45 sites" in run(nodes, "SparseDictFromLora", **call)[1]
    else:
        with pytest.raises(FileFormatError) as caught:
            run(nodes, "SparseDictFromLora", **call)
        assert path.name in str(caught.value) and "\n" not in str(caught.value) and all(word in str(caught.value) for word in words), str(caught.value)
