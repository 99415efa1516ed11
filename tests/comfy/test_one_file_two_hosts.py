"""One file, the same model in the host and in diffusers: the same change, number for number (SD1.5, SD3, Flux)."""

import pytest
import tiny_models
import torch
from core.tiny_denoisers import DENOISERS

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.file_format import load, save
from sparsedict.sparsedict_core.site_discovery import discover_sites

WANTED = pytest.mark.parametrize("wanted", ["out", "out,q,k,v,ff"])


def scrambled(model):
    """A diffusers model whose every weight says something."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.5 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale + (parameter.ndim == 1))
    return model.eval()


def copied(model):
    """The host's converter writes into the tensors that it is given."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def random_file(model, component, family, path, wanted):
    """An adapter made with diffusers' names, saved."""
    adapter = SparseAdapter.create(model, discover_sites(model, wanted).sites, AdapterConfig(atoms=12, rank=4), component, metadata={"base_family": family})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for site in adapter.sites.values():
            site.dictionary_basis.copy_(torch.randn(site.dictionary_basis.shape, generator=generator) * 0.3)
            site.threshold.fill_(0.3)
    save(adapter, path)
    return load(path)


def check(patcher, model, component, family, path, here, there, wanted):
    """The sites of `wanted` kinds: q, k and v are slices of fused Linears in some of the host's models. `here()` runs the host's denoiser, `there()` that of diffusers; both (B, …)."""
    import comfy.model_management

    from sparsedict.comfyui_host.injection import apply_adapter

    adapter = random_file(model, component, family, path, wanted)
    with torch.inference_mode():
        base = there()
        assert torch.allclose(here(), base, atol=1e-4), "the two models differ without an adapter"
        applied = apply_adapter(patcher, adapter, 0.7)
        comfy.model_management.load_models_gpu([applied])
        try:
            mine = here()
        finally:
            comfy.model_management.unload_all_models()
        with adapter.attach(model, 0.7, component=component):
            theirs = there()
        change = float((theirs - base).abs().max())
        assert change > 1e-2 and float((mine - theirs).abs().max()) < 1e-2 * change
        assert torch.allclose(here(), base, atol=1e-4)


@WANTED
def test_sd15(comfy, tmp_path, wanted):
    import comfy.utils
    from diffusers import UNet2DConditionModel

    patcher = tiny_models.load("sd15")
    unet = patcher.model.diffusion_model
    model = UNet2DConditionModel(
        sample_size=8, block_out_channels=(320, 320), layers_per_block=1, cross_attention_dim=768, attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
    ).eval()  # fmt: skip
    names = comfy.utils.unet_to_diffusers(patcher.model.model_config.unet_config)
    weights = dict(unet.state_dict())
    missing = model.load_state_dict({theirs: weights[ours].clone() for theirs, ours in names.items() if ours in weights}, strict=False)
    assert not missing.missing_keys and not missing.unexpected_keys
    generator = torch.Generator().manual_seed(2)
    x, text, t = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 77, 768, generator=generator), torch.tensor([300.0, 700.0])
    check(
        patcher, model, "unet", "sd15", tmp_path / "a.safetensors",
        lambda: unet(x, timesteps=t, context=text),
        lambda: model(x, t, text).sample, wanted,
    )  # fmt: skip


@WANTED
def test_sd3(comfy, tmp_path, wanted):
    import comfy.sd
    from diffusers import SD3Transformer2DModel

    model = SD3Transformer2DModel(
        sample_size=16, num_layers=2, attention_head_dim=64, num_attention_heads=2, joint_attention_dim=64, caption_projection_dim=128,
        pooled_projection_dim=32, pos_embed_max_size=16,
    )  # fmt: skip
    scrambled(model)
    patcher = comfy.sd.load_diffusion_model_state_dict(copied(model), {"dtype": torch.float32})
    denoiser = patcher.model.diffusion_model
    generator = torch.Generator().manual_seed(2)
    x, text, pooled = (torch.randn(2, *shape, generator=generator) for shape in ((16, 16, 16), (8, 64), (32,)))
    t = torch.tensor([300.0, 700.0])
    check(
        patcher, model, "transformer", "sd3", tmp_path / "a.safetensors",
        lambda: denoiser(x, t, context=text, y=pooled),
        lambda: model(x, encoder_hidden_states=text, pooled_projections=pooled, timestep=t).sample, wanted,
    )  # fmt: skip


@WANTED
def test_flux(comfy, tmp_path, wanted):
    """The host's loader knows Flux by 24 heads; a small one is built from the host's classes and given diffusers' weights by the host's converter."""
    import comfy.model_detection
    import comfy.model_patcher
    import comfy.supported_models

    model = scrambled(DENOISERS["flux"][0]()[0])
    shape = model.config
    width = shape.attention_head_dim * shape.num_attention_heads
    settings = tiny_models.flux_settings(
        in_channels=shape.in_channels // 4, out_channels=shape.in_channels // 4, vec_in_dim=shape.pooled_projection_dim,
        context_in_dim=shape.joint_attention_dim, hidden_size=width, mlp_ratio=4.0, num_heads=shape.num_attention_heads, depth=shape.num_layers,
        depth_single_blocks=shape.num_single_layers, axes_dim=list(shape.axes_dims_rope), guidance_embed=shape.guidance_embeds,
    )  # fmt: skip
    config = comfy.supported_models.Flux(settings)
    config.set_inference_dtype(torch.float32, None)
    inner = config.get_model({}, "", device=torch.device("cpu"))
    denoiser = inner.diffusion_model
    denoiser.load_state_dict(comfy.model_detection.convert_diffusers_mmdit(copied(model), ""))
    patcher = comfy.model_patcher.ModelPatcher(inner, torch.device("cpu"), torch.device("cpu"))
    generator = torch.Generator().manual_seed(2)
    h = w = 4
    x = torch.randn(1, shape.in_channels // 4, 2 * h, 2 * w, generator=generator)
    text = torch.randn(1, 6, shape.joint_attention_dim, generator=generator)
    pooled = torch.randn(1, shape.pooled_projection_dim, generator=generator)
    # The same picture as diffusers has it: 2 × 2 cells a token, positions beside them.
    packed = x.view(1, -1, h, 2, w, 2).permute(0, 2, 4, 1, 3, 5).reshape(1, h * w, -1)
    places = torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"), -1).reshape(-1, 2)
    ids = torch.cat([torch.zeros(h * w, 1), places], 1)
    guided = {"guidance": torch.tensor([3.5])} if shape.guidance_embeds else {}

    def there():
        out = model(
            hidden_states=packed, encoder_hidden_states=text, pooled_projections=pooled, timestep=torch.tensor([0.7]), img_ids=ids,
            txt_ids=torch.zeros(6, 3), **guided,
        ).sample  # fmt: skip
        return out.view(1, h, w, -1, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(x.shape)

    check(
        patcher, model, "transformer", "flux", tmp_path / "a.safetensors",
        lambda: denoiser(x, torch.tensor([0.7]), context=text, y=pooled, **guided),
        there, wanted,
    )  # fmt: skip
