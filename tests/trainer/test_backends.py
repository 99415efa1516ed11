"""Each diffusers family on a tiny pipeline of its real classes: the trainer's whole way from picture to gradient, and back to a picture."""

from __future__ import annotations

import json
import shutil

import pytest
import tiny_pipelines
import torch
from tiny_pipelines import SIDE, save_single_file, save_tiny

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.errors import SparseDictError
from sparsedict.sparsedict_core.site_discovery import discover_sites
from sparsedict.trainer.backends.open_diffusers import open_diffusers

CAPTIONS = ["a red zorp", "blue"]
#: name → (pipeline, its options, prediction, conditioning)
CASES = {
    "sd15": ("sd15", {}, "epsilon", {"context"}),
    "sd15-v": ("sd15", {"prediction_type": "v_prediction"}, "v", {"context"}),
    "sdxl": ("sdxl", {}, "epsilon", {"context", "pooled"}),
    "sd3": ("sd3", {}, "flow", {"context", "pooled"}),
    "sd3-without-t5": ("sd3", {"encoders": (True, True, False)}, "flow", {"context", "pooled"}),
    "sd3-without-clip-g": ("sd3", {"encoders": (True, False, True)}, "flow", {"context", "pooled"}),
    "sd3-t5-only": ("sd3", {"encoders": (False, False, True)}, "flow", {"context", "pooled"}),
    "flux-dev": ("flux", {}, "flow", {"context", "pooled", "guidance"}),
    "flux-schnell": ("flux", {"guidance": False}, "flow", {"context", "pooled"}),
}


@pytest.fixture(scope="module")
def opened(opened):
    """Backends by case."""
    return lambda case: opened(CASES[case][0], **CASES[case][1])


@pytest.fixture(params=CASES)
def case(request):
    return request.param


def pictures(count=2, height=SIDE, width=SIDE):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_says_what_it_is(opened, case):
    backend = opened(case)
    name, _, prediction, _ = CASES[case]
    assert (backend.family, backend.prediction) == (name, prediction)
    assert backend.component == ("unet" if name.startswith("sd15") or name == "sdxl" else "transformer")
    assert (backend.latent_scale, backend.latent_channels, backend.default_size) == (2, 4, SIDE)
    assert backend.default_size % backend.size_multiple == 0
    assert not backend.denoiser.training and not any(p.requires_grad for p in backend.denoiser.parameters())


def test_one_training_step(opened, case):
    """A picture higher than wide, so that no side is taken for the other."""
    backend = opened(case)
    latents = backend.encode_images(pictures(height=SIDE, width=SIDE + backend.size_multiple))
    assert latents.shape == (2, 4, SIDE // 2, SIDE // 2 + backend.size_multiple // 2)
    conditioning = backend.encode_captions(CAPTIONS)
    assert set(conditioning) == CASES[case][3] and all(len(value) == 2 for value in conditioning.values())

    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(latents.shape, generator=generator)
    levels = backend.sample_noise_levels(2, generator, tuple(latents.shape[-2:]))
    noisy, target = backend.add_noise(latents, noise, levels), backend.target(latents, noise, levels)
    assert noisy.shape == target.shape == latents.shape and backend.snr(levels).shape == (2,)

    discovery = discover_sites(backend.denoiser)
    # Enough atoms that some fire although random attention makes all tokens alike.
    adapter = SparseAdapter.create(backend.denoiser, discovery.sites, AdapterConfig(atoms=32, rank=4), discovery.component)
    base = backend.predict(noisy, levels, conditioning)
    with adapter.attach(backend.denoiser, component=backend.component):
        predicted = backend.predict(noisy, levels, conditioning)
        assert torch.equal(predicted, base)  # a fresh adapter changes nothing
        assert predicted.shape == noisy.shape
        (predicted - target).square().mean().backward()
    largest = {key: max(float(p.grad.abs().max()) for p in site.parameters() if p.grad is not None) for key, site in adapter.sites.items()}
    assert all(value > 0 for value in largest.values()), largest
    assert all(p.grad is None for p in backend.denoiser.parameters())


def test_a_row_of_conditioning_stands_for_its_caption(opened, case):
    backend = opened(case)
    both = backend.encode_captions(CAPTIONS)
    noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    levels = backend.sample_noise_levels(2, torch.Generator().manual_seed(0), (8, 8))
    together = backend.predict(noisy, levels, both)
    for row in range(2):
        alone = backend.predict(noisy[row : row + 1], levels[row : row + 1], {key: value[row : row + 1] for key, value in both.items()})
        torch.testing.assert_close(alone, together[row : row + 1], rtol=1e-4, atol=1e-4)
    swapped = backend.predict(noisy, levels, {key: value.flip(0) for key, value in both.items()})
    assert not torch.allclose(swapped, together, atol=1e-5)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_sampling(opened, case, guidance):
    backend = opened(case)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    steps = []
    latents = backend.sample(CAPTIONS, noise, 2, guidance, lambda step, of: steps.append((step, of)))
    assert latents.shape == noise.shape and steps[-1][0] == steps[-1][1] == len(steps) >= 2
    assert torch.equal(latents, backend.sample(CAPTIONS, noise, 2, guidance))
    images = backend.decode(latents)
    assert images.shape == (2, 3, SIDE, SIDE) and images.isfinite().all() and images.abs().max() <= 1


@pytest.mark.parametrize("case", ["sd15", "sdxl", "sd3", "flux-dev", "flux-schnell"])
def test_samples_as_the_pipeline_itself(opened, case):
    """The same captions, noise, steps and guidance give what diffusers' own pipeline gives."""
    backend = opened(case)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    ours = backend.sample(CAPTIONS, noise, 3, backend.default_guidance)
    given = noise.clone()
    options = {"latents": given, "num_inference_steps": 3, "guidance_scale": backend.default_guidance, "output_type": "latent"}
    if case.startswith("flux"):
        from sparsedict.trainer.backends.flux import pack, unpack

        options |= {"latents": pack(given), "max_sequence_length": backend.text_length}
    if case == "sd3":
        options["max_sequence_length"] = tiny_pipelines.TEXT_LENGTH
    backend.pipeline.set_progress_bar_config(disable=True)
    theirs = backend.pipeline(CAPTIONS, height=SIDE, width=SIDE, **options).images
    if case.startswith("flux"):
        theirs = unpack(theirs, 8, 8)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_targets_lead_back_to_the_picture(opened, case):
    """From x_t and the exact prediction, x0 follows by the family's own equation."""
    backend = opened(case)
    latents, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    levels = backend.sample_noise_levels(3, torch.Generator().manual_seed(6), (8, 8))
    noisy, target = backend.add_noise(latents, noise, levels), backend.target(latents, noise, levels)
    ratio = backend.snr(levels).sqrt().view(-1, 1, 1, 1)  # signal / noise
    if backend.prediction == "flow":
        recovered = noisy - target / (1 + ratio)
    else:
        signal, sigma = ratio / (1 + ratio.square()).sqrt(), 1 / (1 + ratio.square()).sqrt()
        recovered = signal * noisy - sigma * target if backend.prediction == "v" else (noisy - sigma * target) / signal
    torch.testing.assert_close(recovered, latents, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("case", ["sd3", "flux-dev"])
def test_noise_levels_are_shifted_towards_noise(opened, case):
    """By the scheduler's constant shift, or by one that grows with the picture."""
    backend = opened(case)
    small, large = (backend.sample_noise_levels(4000, torch.Generator().manual_seed(0), size) for size in ((4, 4), (16, 16)))
    assert small.min() > 0 and large.max() < 1
    assert small.median() > 0.55
    assert (large.median() > small.median() + 0.05) == (case == "flux-dev")


def test_vae_scaling_and_shift(opened):
    backend = opened("sd3")
    latents = backend.encode_images(pictures())
    raw = backend.vae.encode(pictures()).latent_dist.mean
    torch.testing.assert_close(latents, (raw - 0.1) * 0.5)
    torch.testing.assert_close(backend.decode(latents), backend.vae.decode(raw).sample.clamp(-1, 1))


def test_sd3_works_without_a_folder_that_its_index_lists(tmp_path):
    folder = save_tiny("sd3", tmp_path)
    shutil.rmtree(folder / "text_encoder_3")
    assert open_diffusers(folder).encode_captions(["a"])["context"].shape == (1, tiny_pipelines.TEXT_LENGTH + 256, 40)
    for number in ("", "_2"):
        shutil.rmtree(folder / f"text_encoder{number}")
    with pytest.raises(SparseDictError, match="no text encoder"):
        open_diffusers(folder)


def test_fingerprint_tells_weights_apart(opened, tmp_path):
    one = opened("sd15").fingerprint()
    assert len(one) == 16 and int(one, 16) >= 0
    assert open_diffusers(save_tiny("sd15", tmp_path / "same")).fingerprint() == one
    assert open_diffusers(save_tiny("sd15", tmp_path / "other", seed=1)).fingerprint() != one


@pytest.mark.parametrize("name", ["sd15", "sdxl", "sd3", "flux"])
def test_bfloat16(tmp_path, name):
    backend = open_diffusers(save_tiny(name, tmp_path), dtype=torch.bfloat16)
    latents = backend.encode_images(pictures())
    assert latents.dtype == torch.bfloat16
    levels = backend.sample_noise_levels(2, torch.Generator().manual_seed(0), (8, 8))
    predicted = backend.predict(latents.float(), levels, backend.encode_captions(CAPTIONS))
    assert predicted.dtype == torch.float32 and predicted.isfinite().all()
    assert backend.decode(backend.sample(CAPTIONS, latents, 2)).isfinite().all()


@pytest.mark.parametrize("name", ["EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler", "HeunDiscreteScheduler"])
def test_other_schedulers(tmp_path, name):
    """One that adds noise on the way still gives equal pictures for equal noise; one that calls the model twice a step counts so."""
    import diffusers

    backend = open_diffusers(save_tiny("sdxl", tmp_path))
    backend.pipeline.scheduler = getattr(diffusers, name).from_config(backend.scheduler_config)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(8))
    one, two = (backend.sample(CAPTIONS, noise, 3, 1.0) for _ in range(2))
    assert torch.equal(one, two) and one.isfinite().all()


def test_half_precision_files(tmp_path):
    """A folder that has only the files whose names say fp16."""
    folder = save_tiny("flux", tmp_path / "full")
    backend = open_diffusers(folder)
    backend.encode_captions(["a"])  # which loads the text encoders
    backend.pipeline.save_pretrained(str(tmp_path / "half"), variant="fp16")
    assert open_diffusers(tmp_path / "half").fingerprint() == backend.fingerprint()


def test_single_file(opened, tmp_path):
    """With the tokenizer and configs in a folder of its name beside it; nothing else is needed."""
    folder = save_tiny("sd15", tmp_path / "model")
    backend = opened("sd15")
    file = save_single_file(backend.pipeline, tmp_path / "model.safetensors")
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    single = open_diffusers(file)
    assert (single.family, single.fingerprint()) == ("sd15", backend.fingerprint())
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    assert torch.equal(single.decode(single.sample(CAPTIONS, noise, 2)), backend.decode(backend.sample(CAPTIONS, noise, 2)))


def test_single_file_without_configs_says_where_they_belong(opened, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args, **kwargs: None)
    file = save_single_file(opened("sd15").pipeline, tmp_path / "alone.safetensors")
    with pytest.raises(SparseDictError, match=r"tokenizer.*stable-diffusion-v1-5.*alone"):
        open_diffusers(file)


def test_what_cannot_be_opened_is_said(opened, tmp_path):
    def refused(path, words):
        with pytest.raises(SparseDictError, match=words) as error:
            open_diffusers(path)
        assert "\n" not in str(error.value)

    refused(tmp_path / "nowhere", "no model at")
    refused(tmp_path, r"no model_index\.json.*FluxPipeline")
    (tmp_path / "model.ckpt").touch()
    refused(tmp_path / "model.ckpt", "neither a folder nor")
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    refused(tmp_path / "bad.safetensors", "cannot be read")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, str(tmp_path / "lora.safetensors"))
    refused(tmp_path / "lora.safetensors", "not a whole SD1.5 or SDXL")
    index = tmp_path / "model_index.json"
    index.write_text("{")
    refused(tmp_path, "cannot be read")
    index.write_text(json.dumps({"_class_name": "LTXPipeline"}))
    refused(tmp_path, "LTXPipeline.*StableDiffusionXLPipeline")
    half = save_tiny("sd15", tmp_path / "half")
    shutil.rmtree(half / "unet")
    refused(half, "cannot be loaded as a StableDiffusionPipeline")
