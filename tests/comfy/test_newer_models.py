"""Models of newer hosts that nobody wrote down: seen in a step, trained under the host's own names, saved, loaded and pruned.

On hosts that don't have a class yet its test is skipped; COMFYUI_ROOT leads to a newer one.
"""

from __future__ import annotations

import pytest
import torch

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.errors import SiteError
from sparsedict.sparsedict_core.file_format import load, save
from sparsedict.sparsedict_core.prune import prune
from sparsedict.sparsedict_core.selection import Selection, select
from sparsedict.trainer.backends.comfyui_gradients import kernels_with_gradients

r = torch.randn
COSMOS = {
    "max_img_h": 16, "max_img_w": 16, "max_frames": 4, "in_channels": 16, "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "model_channels": 48,
    "num_blocks": 2, "num_heads": 2, "crossattn_emb_channels": 16, "pos_emb_cls": "rope3d", "use_adaln_lora": True, "adaln_lora_dim": 8,
}  # fmt: skip
TIME = torch.tensor([0.5])

#: the host's configuration class → (settings, inputs of one forward, number of attention outputs)
MODELS = {
    "Krea2": (
        {"features": 64, "tdim": 16, "txtdim": 32, "heads": 2, "kvheads": 1, "multiplier": 2, "layers": 2, "channels": 4, "txtlayers": 2, "txtheads": 2, "txtkvheads": 2},
        lambda: {"x": r(1, 4, 8, 8), "timesteps": TIME, "context": r(1, 5, 2 * 32)}, None,
    ),
    "Anima": (COSMOS, lambda: {"x": r(1, 16, 1, 8, 8), "timesteps": TIME, "context": r(1, 5, 16), "padding_mask": torch.zeros(1, 1, 8, 8)}, 4),
    "CosmosT2IPredict2": (COSMOS, lambda: {"x": r(1, 16, 1, 8, 8), "timesteps": TIME, "context": r(1, 5, 16), "padding_mask": torch.zeros(1, 1, 8, 8)}, 4),
    "ErnieImage": (
        {"hidden_size": 32, "num_attention_heads": 2, "num_layers": 2, "ffn_hidden_size": 32, "in_channels": 128, "out_channels": 128, "text_in_dim": 12, "rope_axes_dim": (4, 6, 6)},
        lambda: {"x": r(1, 128, 4, 4), "timesteps": TIME, "context": r(1, 5, 12)}, 2,
    ),
    "Ideogram4": (
        {"in_channels": 4, "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16, "intermediate_size": 32, "adaln_dim": 8, "llm_features_dim": 12, "mrope_section": (4, 2, 2)},
        lambda: {"x": r(1, 4, 4, 4), "timesteps": TIME, "context": r(1, 5, 53248)}, 2,
    ),
    "Kandinsky5": (
        {"in_visual_dim": 4, "out_visual_dim": 4, "in_text_dim": 12, "in_text_dim2": 8, "time_dim": 16, "model_dim": 32, "ff_dim": 32, "visual_embed_dim": 16, "num_text_blocks": 1,
         "num_visual_blocks": 2, "axes_dims": (4, 6, 6)},
        lambda: {"x": r(1, 4, 1, 8, 8), "timestep": TIME, "context": r(1, 5, 12), "y": r(1, 8)}, 5,
    ),
    "HiDream": (
        {"patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2,
         "caption_channels": [12, 12], "text_emb_dim": 8, "num_routed_experts": 2, "num_activated_experts": 1, "axes_dims_rope": (4, 6, 6), "max_resolution": (8, 8),
         "llama_layers": [0, 1, 2, 3]},
        lambda: {"x": r(1, 16, 8, 8), "t": torch.tensor([3.0]), "y": r(1, 8), "context": r(1, 5, 12), "encoder_hidden_states_llama3": r(1, 4, 5, 12)}, 6,
    ),
    "LTXV": (
        {"in_channels": 128, "cross_attention_dim": 32, "attention_head_dim": 16, "num_attention_heads": 2, "caption_channels": 12, "num_layers": 2},
        lambda: {"x": r(1, 128, 2, 4, 4), "timestep": TIME, "context": r(1, 5, 12), "attention_mask": None}, 4,
    ),
    "LTXAV": (
        {"in_channels": 4, "audio_in_channels": 128, "cross_attention_dim": 32, "audio_cross_attention_dim": 16, "attention_head_dim": 16, "audio_attention_head_dim": 8,
         "num_attention_heads": 2, "audio_num_attention_heads": 2, "caption_channels": 12, "num_layers": 2},
        lambda: {"x": [r(1, 4, 2, 4, 4), r(1, 8, 6, 16)], "timestep": [TIME, TIME], "context": r(1, 5, 24)}, None,
    ),
}  # fmt: skip


def built(name: str):
    """The host's own model of a tiny configuration, in a ModelPatcher."""
    import comfy.model_patcher
    import comfy.supported_models

    kind = getattr(comfy.supported_models, name, None)
    if kind is None:
        pytest.skip(f"this host has no {name}")
    config = kind({"image_model": kind.unet_config.get("image_model"), **MODELS[name][0]})
    config.set_inference_dtype(torch.float32, None)
    torch.manual_seed(0)
    with torch.inference_mode(False):
        model = config.get_model({}, "", device=torch.device("cpu"))
        for parameter in model.requires_grad_(False).parameters():
            parameter.normal_(0, 0.1 if parameter.ndim < 2 else parameter[0].numel() ** -0.5)
    return comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


def output_of(model, inputs):
    out = model(**inputs)
    return torch.cat([part.flatten() for part in (out if isinstance(out, (list, tuple)) else [out])])


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_nobody_wrote_down(comfy, name, tmp_path):
    import comfy.model_management

    from sparsedict.comfyui_host.sites import OWN, alias_tree, host_sites, modules_for

    patcher, inputs = built(name), MODELS[name][1]()
    model, count = patcher.model.diffusion_model, MODELS[name][2]
    training = hasattr(comfy.model_management, "in_training")
    if training:
        comfy.model_management.in_training = True  # operations that have gradients
    try:
        with pytest.raises(SiteError, match="before it has made a step"):
            host_sites(patcher)
        sites = host_sites(patcher, lambda: output_of(model, inputs))
        assert sites.component == OWN and sites.own_names == "ComfyUI" and sites.family == type(patcher.model).__name__
        assert count is None or len(sites.names) == count
        assert host_sites(patcher).names == sites.names, "what was seen is kept"
        metadata = {"base_family": sites.family, "site_names": sites.own_names}
        adapter = SparseAdapter.create(alias_tree(sites), sites.names, AdapterConfig(atoms=6, rank=3, density=0.9), sites.component, 0, metadata)
        base = output_of(model, inputs)
        assert base.isfinite().all()
        optimiser = torch.optim.Adam(adapter.parameters(), 0.02)
        # Some add to their inputs in place.
        with adapter.attach(alias_tree(sites)), kernels_with_gradients(), torch.autograd.graph.allow_mutation_on_saved_tensors():
            assert torch.allclose(output_of(model, inputs), base, atol=1e-5)
            for _ in range(3):
                (output_of(model, inputs) - base.roll(1)).square().mean().backward()
                assert all(site.dictionary_basis.grad.abs().sum() > 0 for site in adapter.sites.values())
                optimiser.step()
                optimiser.zero_grad()
        adapter.requires_grad_(False)
        with torch.no_grad(), adapter.attach(alias_tree(sites)):
            full = output_of(model, inputs)
    finally:
        if training:
            comfy.model_management.in_training = False
    save(adapter, tmp_path / "a.safetensors", torch.float32)
    loaded = load(tmp_path / "a.safetensors")
    assert loaded.metadata["site_names"] == "ComfyUI"
    from sparsedict.sparsedict_core.attachment import Attachment

    with torch.no_grad():
        for kept, wanted in ((loaded, full), (prune(loaded, select(loaded, Selection(top=0))), base)):
            attachment = Attachment(kept, modules_for(kept, patcher))
            assert torch.allclose(output_of(model, inputs), wanted, atol=1e-4)
            attachment.detach()
        assert torch.allclose(output_of(model, inputs), base, atol=1e-5)
    loaded.metadata["base_family"] = "Another"
    with pytest.raises(SiteError, match=f"made for Another under the names of ComfyUI, this model is {sites.family}"):
        modules_for(loaded, patcher)


def trained(name, folder, **more):
    """As the training node does it: a model, a conditioning, latents; no CLIP and no VAE."""
    from sparsedict.trainer import Callbacks, ConceptData, TrainConfig
    from sparsedict.trainer.backends.comfyui import ComfyBackend, train_in_host

    torch.manual_seed(1)
    patcher, inputs = built(name), MODELS[name][1]()
    backend = ComfyBackend(patcher)
    said = {"attention_mask": torch.ones(1, 5)} if name == "LTXV" else {}
    if name == "HiDream":
        said = {"conditioning_llama3": inputs["encoder_hidden_states_llama3"], "pooled_output": inputs["y"]}
    backend.register("a thing", [[inputs["context"], said]])
    config = TrainConfig(
        out=folder / "a.safetensors", steps=2, batch_size=1, atoms=4, rank=2, quiet_samples=0, nested=0.0, preview_prompts=[], moments=False, **more
    )
    latents = torch.randn(2, backend.latent_channels, *([1] if inputs["x"].ndim == 5 else []), 8, 8)
    result = train_in_host(config, backend, lambda: ConceptData.from_latents(list(backend.latents_in(latents)), ["a thing"] * 2), Callbacks())
    return load(result.path), result


@pytest.mark.parametrize("name", ["HiDream", "ErnieImage", "Anima"])
def test_the_trainer_sees_the_sites_in_a_step_of_its_own(comfy, name, tmp_path):
    adapter, _ = trained(name, tmp_path)
    assert adapter.component == "diffusion_model" and adapter.metadata["site_names"] == "ComfyUI" and len(adapter.sites) == MODELS[name][2]
    assert any(bool(site.dictionary_basis.any()) for site in adapter.sites.values())


def test_a_model_that_adds_to_its_inputs_in_place_trains_right_with_and_without_recomputed_blocks(comfy, tmp_path):
    """LTXV's blocks add to what autograd has saved, and to the input that a second run of the block would need."""
    runs = {recomputed: trained("LTXV", tmp_path, gradient_checkpointing=recomputed, overwrite=True) for recomputed in (False, True)}
    (plain, one), (recomputed, two) = runs.values()
    assert [row["loss"] for row in one.log] == pytest.approx([row["loss"] for row in two.log], rel=1e-5)
    for key, site in plain.sites.items():
        assert bool(site.dictionary_basis.any())
        assert torch.allclose(site.dictionary_basis, recomputed.sites[key].dictionary_basis, atol=1e-5)
