"""One adapter file, one checkpoint of the SD1.5 layout, one noise: the same picture in ComfyUI, with diffusers as the command line has it,
and in each web UI that is there (SPARSEDICT_A1111_ROOT, SPARSEDICT_FORGE_ROOT, SPARSEDICT_NEO_ROOT; a Forge's folder has the checkpoint)."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from webui.same_picture import STRENGTH, draw
from webui.test_real_hosts import HOSTS, PROJECT

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.file_format import load, save
from sparsedict.sparsedict_core.site_discovery import discover_sites

LEVELS = 2  # of 255 by which a pixel may differ: the hosts compute attention in other orders


@pytest.fixture(scope="module")
def checkpoint():
    for variable in ("SPARSEDICT_FORGE_ROOT", "SPARSEDICT_NEO_ROOT"):
        if variable in os.environ:
            return Path(os.environ[variable]) / "checkpoint" / "tiny.safetensors"
    pytest.skip("the picture of all hosts is drawn only where SPARSEDICT_FORGE_ROOT or SPARSEDICT_NEO_ROOT names a folder that tests/webui/prepare_host.py has made")


@pytest.fixture(scope="module")
def diffusers_model(comfy, checkpoint):
    """The checkpoint's UNet and VAE as diffusers has them."""
    from comfy.utils import unet_to_diffusers
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    state = {name: tensor.float() for name, tensor in load_file(checkpoint).items()}
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(320, 320), layers_per_block=1, cross_attention_dim=768, attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
    ).eval().requires_grad_(False)  # fmt: skip
    shape = {"num_res_blocks": [1, 1], "channel_mult": [1, 1], "transformer_depth": [1, 1], "transformer_depth_output": [1] * 4, "transformer_depth_middle": 1}
    names = unet_to_diffusers({**shape, "model_channels": 320})
    unet.load_state_dict({theirs: state[f"model.diffusion_model.{ours}"] for theirs, ours in names.items() if f"model.diffusion_model.{ours}" in state})
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4
    ).eval().requires_grad_(False)  # fmt: skip
    vae.load_state_dict(convert_ldm_vae_checkpoint(state, vae.config))
    return unet, vae


@pytest.fixture(scope="module")
def expected(diffusers_model, tmp_path_factory):
    """The file, and the pictures without and with it."""
    unet, vae = diffusers_model
    adapter = SparseAdapter.create(unet, discover_sites(unet).sites, AdapterConfig(atoms=12, rank=4), "unet", metadata={"base_family": "sd15"})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for site in adapter.sites.values():
            site.dictionary_basis.copy_(torch.randn(site.dictionary_basis.shape, generator=generator) * 0.3)
    path = tmp_path_factory.mktemp("adapters") / "same.safetensors"
    save(adapter, path)

    def picture():
        return draw(lambda x, t, context: unet(x, t, encoder_hidden_states=context).sample, lambda z: vae.decode(z / 0.18215).sample)

    base = picture()
    with load(path).attach(unet, STRENGTH, component="unet"):
        tagged = picture()
    assert difference(base, tagged) > 20 and base.float().std() > 10, "the adapter must show"
    return path, base, tagged


def difference(one, other):
    return int((one.int() - other.int()).abs().max())


def test_comfyui_draws_the_picture_of_the_command_line(comfy, checkpoint, expected):
    import comfy.model_management
    import comfy.sd

    from sparsedict.comfyui_host.injection import apply_adapter

    path, base, tagged = expected
    patcher, _, vae, _ = comfy.sd.load_checkpoint_guess_config(str(checkpoint), output_clip=False)

    def picture(patcher):
        comfy.model_management.load_models_gpu([patcher], force_full_load=True)
        with torch.inference_mode():
            return draw(
                lambda x, t, context: patcher.model.diffusion_model(x.float(), t, context=context).float(),
                lambda z: vae.decode(patcher.model.process_latent_out(z)).movedim(-1, 1) * 2 - 1,
            )

    assert difference(picture(patcher), base) <= LEVELS
    assert difference(picture(apply_adapter(patcher, load(path), STRENGTH)), tagged) <= LEVELS


@pytest.mark.parametrize("host", list(HOSTS))
def test_a_web_ui_draws_it_too(host, checkpoint, expected, tmp_path):
    path, base, tagged = expected
    if HOSTS[host] not in os.environ:
        pytest.skip(f"the real {host} is tried only where {HOSTS[host]} names a folder that tests/webui/prepare_host.py has made")
    prepared, out = Path(os.environ[HOSTS[host]]), tmp_path / "pictures.safetensors"
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")} | {"HF_HUB_OFFLINE": "1"}
    command = [prepared / "venv/bin/python", PROJECT / "tests/webui/same_picture_in_the_host.py", prepared / "host", PROJECT, checkpoint, path.parent, out]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert out.exists(), run.stdout[-2000:] + run.stderr[-3000:]
    pictures = load_file(out)
    assert difference(pictures["base"], base) <= LEVELS and difference(pictures["tag"], tagged) <= LEVELS
    assert torch.equal(pictures["restored"], pictures["base"])
