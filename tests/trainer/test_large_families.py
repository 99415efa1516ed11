"""The large families on tiny pipelines of their real classes: as the pipeline itself samples, and from training to a loaded file's picture."""

from __future__ import annotations

import pytest
import torch
from tiny_large_pipelines import LARGE

from sparsedict.sparsedict_core.errors import SparseDictError
from sparsedict.sparsedict_core.file_format import load
from sparsedict.trainer import Callbacks, ConceptData, TrainConfig, train
from sparsedict.trainer.backends.flux import pack
from sparsedict.trainer.backends.open_diffusers import open_diffusers

CAPTIONS = ["a red zorp", "blue"]
HEIGHT, WIDTH = 32, 64


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def noise_for(backend, rows=2):
    shape = (rows, backend.latent_channels, HEIGHT // backend.latent_scale, WIDTH // backend.latent_scale)
    return torch.randn(shape, generator=torch.Generator().manual_seed(4))


#: How each pipeline is asked for what `sample` does with guidance 3: in its own scale, with latents in its own shape.
ASKED = {
    "flux2": lambda noise: {"guidance_scale": 3.0, "latents": noise, "max_sequence_length": 320},
    "flux2_klein": lambda noise: {"guidance_scale": 3.0, "latents": noise, "max_sequence_length": 48},
    "qwen_image": lambda noise: {"true_cfg_scale": 3.0, "negative_prompt": ["", ""], "latents": pack(noise)},
    "z_image": lambda noise: {"guidance_scale": 2.0, "latents": noise},
    "chroma": lambda noise: {"guidance_scale": 3.0, "latents": pack(noise), "max_sequence_length": 16},
    "lumina2": lambda noise: {"guidance_scale": 3.0, "latents": noise},
    "sana": lambda noise: {"guidance_scale": 3.0, "latents": noise, "use_resolution_binning": False},
    "wan": lambda noise: {"guidance_scale": 3.0, "latents": noise.unsqueeze(2), "num_frames": 1, "max_sequence_length": 16},
}


@pytest.mark.parametrize("name", LARGE)
def test_samples_as_the_pipeline_itself(opened, name):
    backend = opened(name, distilled=False) if name == "flux2_klein" else opened(name)
    noise = noise_for(backend)
    ours = backend.decode(backend.sample(CAPTIONS, noise, 3, 3.0))
    pipeline = backend.pipeline
    pipeline.set_progress_bar_config(disable=True)
    output = pipeline(prompt=list(CAPTIONS), height=HEIGHT, width=WIDTH, num_inference_steps=3, output_type="pt", **ASKED[name](noise))
    theirs = output.frames[:, 0] if name == "wan" else output.images
    torch.testing.assert_close((ours + 1) / 2, theirs.float(), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", LARGE)
def test_train_save_load_generate(opened, tmp_path, name):
    backend = opened(name)
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    data = ConceptData.from_tensors(list(pictures), [["a zorp"], ["a zorp at night"]])
    config = TrainConfig(
        out=tmp_path / "a.safetensors", steps=3, batch_size=2, atoms=16, rank=4, resolution=16, quiet_samples=2, quiet_sampling_steps=1, warmup_steps=0,
        learning_rate=0.1, gradient_checkpointing=name == "chroma",
    )  # fmt: skip
    result = train(config, backend, data, Callbacks())
    assert all(torch.isfinite(torch.tensor(entry["loss"])) for entry in result.log)
    adapter = load(result.path)
    assert adapter.metadata["base_family"] == backend.family
    noise = noise_for(backend, rows=1)
    base = backend.sample(["a zorp"], noise, 1, 1.0)
    with adapter.attach(backend.denoiser, component=backend.component) as attachment:
        changed = backend.sample(["a zorp"], noise, 1, 1.0)
        attachment.strength = 0.0
        assert torch.equal(backend.sample(["a zorp"], noise, 1, 1.0), base)
    assert not torch.equal(changed, base) and backend.decode(changed).isfinite().all()
    for key, site in adapter.sites.items():
        # A site that nothing reads never learns; each must have moved from its zero start.
        assert any(bool(parameter.any()) for name, parameter in site.named_parameters() if name == "dictionary_weight"), key


@pytest.mark.parametrize("name", LARGE)
def test_rows_go_together_with_rows_encoded_at_another_time(opened, name):
    backend = opened(name)
    both = backend.encode_captions(CAPTIONS)
    one = backend.encode_captions(CAPTIONS[1:])
    noisy, levels = noise_for(backend), torch.tensor([0.3, 0.6])
    together = backend.predict(noisy, levels, both)
    assert {key: value.shape[1:] for key, value in one.items()} == {key: value.shape[1:] for key, value in both.items()}
    alone = backend.predict(noisy[1:], levels[1:], one)
    torch.testing.assert_close(alone, together[1:], rtol=1e-3, atol=1e-3)
    swapped = backend.predict(noisy, levels, {key: value.flip(0) for key, value in both.items()})
    assert not torch.allclose(swapped, together, atol=1e-5)


def test_sizes_and_guidance_are_the_families_own(opened):
    assert [opened(name).default_size for name in ("flux2", "qwen_image", "z_image", "chroma", "lumina2", "wan")] == [1024] * 5 + [512]
    assert opened("z_image").default_guidance == 1.0 and opened("z_image", shift=6.0).default_guidance == 5.0
    assert opened("flux2_klein").default_steps == 4 and opened("flux2_klein", distilled=False).default_steps == 50


def test_wan_of_two_denoisers_is_refused(tmp_path):
    pipeline = LARGE["wan"]()
    pipeline.register_to_config(boundary_ratio=0.9)
    pipeline.save_pretrained(str(tmp_path))
    with pytest.raises(SparseDictError, match=r"2\.2.*use Wan 2\.1"):
        open_diffusers(tmp_path)
