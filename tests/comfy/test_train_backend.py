"""Training on the host's own models, in this process: every family, the base untouched, the host left as it was."""

import importlib.util
import math
from pathlib import Path

import pytest
import tiny_models
import torch

from sparsedict.comfyui_host.sites import host_sites
from sparsedict.sparsedict_core.file_format import load
from sparsedict.trainer import Callbacks, ConceptData, TrainConfig, train

FAMILIES = ("sd3", "sd15", "wan", "sdxl", "hydit")
QUICK = ("sd3", "sd15", "wan")  # the others are large however small they are made


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, comfy):
    return request.param


@pytest.fixture(scope="module", params=QUICK)
def quick(request, comfy):
    return request.param


def backend_for(family, patcher=None, rows=2):
    from sparsedict.trainer.backends.comfyui import ComfyBackend

    backend = ComfyBackend(patcher or tiny_models.load(family))
    latents = tiny_models.latent(family, rows, seed=5)["samples"]
    captions = [f"conditioning {row}" for row in range(rows)]
    with torch.inference_mode(False):
        for row, caption in enumerate(captions):
            backend.register(caption, tiny_models.conditioning(family, seed=row))
        data = ConceptData.from_latents(list(backend.latents_in(latents)), captions)
    return backend, data


def settings(folder, **more):
    chosen = {"out": folder / "a.safetensors", "steps": 4, "batch_size": 2, "atoms": 16, "rank": 4, "warmup_steps": 1, "quiet_samples": 0,
              "learning_rate": 1e-2, "checkpoint_every": 2, **more}  # fmt: skip
    return TrainConfig(**chosen)


def run(backend, data, folder, callbacks=None, **more):
    torch.manual_seed(0)
    with backend.session():
        return train(settings(folder, **more), backend, data, callbacks or Callbacks())


def small_run_module():
    """tests/trainer/small_run.py: the same pictures and settings as the trainer's own tests."""
    path = Path(__file__).resolve().parents[1] / "trainer" / "small_run.py"
    spec = importlib.util.spec_from_file_location("small_run_of_the_trainer", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def weights(patcher):
    return {name: value.detach().clone() for name, value in patcher.model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_each_family_trains_and_the_base_stays(family, tmp_path):
    patcher = tiny_models.load(family)
    before, picture = weights(patcher), tiny_models.sample(patcher, family)
    backend, data = backend_for(family, patcher)
    result = run(backend, data, tmp_path)
    losses = [row["loss"] for row in result.log]
    assert len(losses) == 4 and all(math.isfinite(loss) for loss in losses) and len(set(losses)) == 4
    assert same(weights(patcher), before)
    assert torch.equal(tiny_models.sample(patcher, family), picture)
    loaded = load(result.path)
    assert loaded.metadata["base_family"] == host_sites(patcher).family
    assert list(loaded.sites) == [name.path for name in host_sites(patcher).names]
    assert any(bool(site.dictionary_weight.count_nonzero()) for site in loaded.sites.values())


def test_an_fp8_base_trains_and_stays(comfy, tmp_path):
    """As "Load Diffusion Model" with weight_dtype fp8_e4m3fn: the host casts a weight at each use."""
    import comfy.sd

    from sparsedict.comfyui_host.injection import apply_adapter

    with torch.inference_mode():
        patcher = comfy.sd.load_diffusion_model_state_dict(tiny_models.state_dict("sd3"), model_options={"dtype": torch.float8_e4m3fn})
    site = next(iter(host_sites(patcher).modules.values()))
    assert site.weight.dtype == torch.float8_e4m3fn
    before, picture = weights(patcher), tiny_models.sample(patcher, "sd3")
    backend, data = backend_for("sd3", patcher)
    result = run(backend, data, tmp_path)
    assert len({row["loss"] for row in result.log}) == 4
    after = weights(patcher)
    assert all(torch.equal(before[key].view(torch.uint8), after[key].view(torch.uint8)) for key in before if before[key].dtype == torch.float8_e4m3fn)
    adapter = load(result.path)
    assert torch.equal(tiny_models.sample(apply_adapter(patcher, adapter, 0.0), "sd3"), picture)
    assert not torch.equal(tiny_models.sample(apply_adapter(patcher, adapter, 1.0), "sd3"), picture)


class PackedWeight(torch.Tensor):
    """Eight-bit numbers and a scale that say they have the shape of what they stand for, as GGUF loaders' tensors do."""

    @staticmethod
    def of(weight):
        scale = weight.abs().amax().clamp(min=1e-8) / 127
        packed = torch.nn.Parameter((weight / scale).round().to(torch.int8).flatten().as_subclass(PackedWeight), requires_grad=False)
        packed.scale, packed.unpacked_shape = scale, weight.shape
        return packed

    def to(self, *args, **kwargs):
        moved = super().to(*args, **kwargs)
        moved.__dict__.update(self.__dict__)
        return moved

    @property
    def shape(self):
        return getattr(self, "unpacked_shape", None) or self.size()

    def unpacked(self, dtype):
        return (self.as_subclass(torch.Tensor).to(dtype) * self.scale.to(dtype)).view(self.unpacked_shape)


def test_a_base_of_packed_weights_trains_through_its_own_forward(comfy, tmp_path):
    """GGUF packs have a Linear of their own, which unpacks in its forward; such a loader is not in the test's host, so one is made here."""
    import comfy.ops

    class Packed(comfy.ops.manual_cast):
        class Linear(comfy.ops.manual_cast.Linear):
            def forward(self, x):
                weight, bias = self.weight, self.bias
                if isinstance(weight, PackedWeight):
                    weight = weight.unpacked(x.dtype)
                return torch.nn.functional.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    import comfy.sd

    with torch.inference_mode():
        patcher = comfy.sd.load_diffusion_model_state_dict(tiny_models.state_dict("sd3"), model_options={"custom_operations": Packed})
        for module in host_sites(patcher).modules.values():
            module.weight = PackedWeight.of(module.weight)
    packed = {name: module.weight.as_subclass(torch.Tensor).clone() for name, module in patcher.model.named_modules() if isinstance(getattr(module, "weight", None), PackedWeight)}
    assert packed
    picture = tiny_models.sample(patcher, "sd3")
    backend, data = backend_for("sd3", patcher)
    result = run(backend, data, tmp_path)
    assert len({row["loss"] for row in result.log}) == 4
    modules = dict(patcher.model.named_modules())
    assert all(torch.equal(modules[name].weight.as_subclass(torch.Tensor), before) for name, before in packed.items())
    assert torch.equal(tiny_models.sample(patcher, "sd3"), picture)


def test_the_trained_file_changes_the_pictures(quick, tmp_path):
    from sparsedict.comfyui_host.injection import apply_adapter

    patcher = tiny_models.load(quick)
    picture = tiny_models.sample(patcher, quick)
    backend, data = backend_for(quick, patcher)
    adapter = load(run(backend, data, tmp_path).path)
    assert not torch.equal(tiny_models.sample(apply_adapter(patcher, adapter, 1.0), quick), picture)
    assert torch.equal(tiny_models.sample(apply_adapter(patcher, adapter, 0.0), quick), picture)


def test_recomputed_blocks_have_the_same_gradients(quick, tmp_path):
    plain, data = backend_for(quick)
    again, _ = backend_for(quick)
    one = run(plain, data, tmp_path / "one")
    two = run(again, data, tmp_path / "two", gradient_checkpointing=True)
    for a, b in zip(one.log, two.log, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
    assert not any("forward" in module.__dict__ for module in again.model.modules())


def test_the_output_is_what_the_sampler_makes_of_it(quick):
    """The denoiser's output, put into the host's formula, is the host's own clean picture; and the target is its inverse."""
    backend, data = backend_for(quick)
    latents = torch.stack([item.latent for item in data.items])
    generator = torch.Generator().manual_seed(1)
    levels = backend.sample_noise_levels(2, generator, (8, 8))
    noise = torch.randn(latents.shape, generator=generator)
    with backend.session(), torch.no_grad():
        noisy = backend.add_noise(latents, noise, levels)
        x = backend._inner(noisy)
        sampling = backend.model_sampling
        output = backend._inner(backend.predict(noisy, levels, backend.encode_captions(["conditioning 0", "conditioning 1"])))
        told = backend.captions.conditions([0, 1], x.shape)
        clean = backend.model.apply_model(x, levels, transformer_options={}, **told)
        assert torch.allclose(sampling.calculate_denoised(levels, output, x), clean, atol=1e-5)
        target = backend._inner(backend.target(latents, noise, levels))
        assert torch.allclose(backend._outer(sampling.calculate_denoised(levels, target, x)), latents, atol=2e-4)


def test_rows_are_told_their_own_captions(comfy):
    backend, _ = backend_for("sd3")
    noisy, levels = torch.randn(2, 16, 8, 8), torch.tensor([0.4, 0.4])
    with backend.session(), torch.no_grad():
        both = backend.predict(noisy, levels, backend.encode_captions(["conditioning 0", "conditioning 1"]))
        first = backend.predict(noisy[:1], levels[:1], backend.encode_captions(["conditioning 0"]))
        second = backend.predict(noisy[1:], levels[1:], backend.encode_captions(["conditioning 1"]))
        swapped = backend.predict(noisy[1:], levels[1:], backend.encode_captions(["conditioning 0"]))
    assert torch.allclose(both, torch.cat([first, second]), atol=1e-5)
    assert not torch.allclose(second, swapped, atol=1e-3)


def test_the_embedded_base_learns_as_from_the_command_line(comfy, tmp_path):
    """Equal seeds: losses within 1e-5 over 10 steps (2e-7 was seen), the same fingerprint, and files that serve both."""
    small_run = small_run_module()
    from sparsedict.comfyui_host import demo_base
    from sparsedict.trainer.backends import open_backend
    from sparsedict.trainer.backends.comfyui import ComfyBackend

    with torch.inference_mode():
        host = ComfyBackend(demo_base.load_model(), demo_base.load_clip(), demo_base.load_vae())
    command_line = open_backend("demo")
    more = {"steps": 10, "quiet_samples": 4, "quiet_sampling_steps": 4}
    with host.session():
        one = small_run.run(tmp_path / "host", host, **more)
    two = small_run.run(tmp_path / "cli", command_line, **more)
    assert host.fingerprint() == command_line.fingerprint()
    assert [row["loss"] for row in one.log] == pytest.approx([row["loss"] for row in two.log], rel=1e-5)
    assert list(one.adapter.sites) == list(two.adapter.sites) and one.adapter.metadata["base_family"] == two.adapter.metadata["base_family"]
    noise = torch.randn(2, 16, 16, 16, generator=torch.Generator().manual_seed(4))
    captions = ["a zorp in the center, night", "a fox in the center, night"]
    with host.session(), load(two.path).attach(host.denoiser, component="transformer"):
        here = host.sample(captions, noise, 8)
    with load(two.path).attach(command_line.denoiser, component="transformer"):
        there = command_line.sample(captions, noise, 8)
    assert torch.allclose(here, there, atol=1e-3)


@pytest.fixture(scope="module")
def flux(comfy):
    """A tiny Flux, which 0.3.75's loader does not take (it knows 24 heads only): made from the host's classes, in inference mode."""
    import comfy.model_patcher
    import comfy.supported_models

    shape = tiny_models.flux_settings(
        in_channels=16, out_channels=16, vec_in_dim=16, context_in_dim=32, hidden_size=64, mlp_ratio=2.0, num_heads=4, depth=2,
        depth_single_blocks=2, axes_dim=[4, 6, 6], guidance_embed=False,
    )  # fmt: skip
    with torch.inference_mode():
        config = comfy.supported_models.Flux(shape)
        config.set_inference_dtype(torch.float32, None)
        model = config.get_model({}, "", device=torch.device("cpu"))
        generator = torch.Generator().manual_seed(0)
        for parameter in model.diffusion_model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15 if parameter.ndim > 1 else torch.full(parameter.shape, 0.5))
        return comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


def flux_backend(flux):
    from sparsedict.trainer.backends.comfyui import ComfyBackend

    backend = ComfyBackend(flux)
    generator = torch.Generator().manual_seed(2)
    with torch.inference_mode(False):
        for row in range(2):
            context = torch.randn(1, 6, 32, generator=generator)
            backend.register(f"text {row}", [[context, {"pooled_output": torch.randn(1, 16, generator=generator)}]])
        data = ConceptData.from_latents([torch.randn(16, 8, 8, generator=generator) for _ in range(2)], ["text 0", "text 1"])
    return backend, data


@pytest.mark.parametrize("recomputed", [False, True])
def test_blocks_that_add_in_place_have_true_gradients(flux, recomputed):
    """Flux adds to its blocks' inputs in place: against finite differences of the loss."""
    backend, data = flux_backend(flux)
    latents = torch.stack([item.latent for item in data.items])
    levels = torch.tensor([0.3, 0.7])
    with backend.session():
        told = backend.encode_captions(["text 0", "text 1"])
        push = torch.zeros(64, requires_grad=True)
        paths = [name.path for name in backend.sites.names]
        handles = [
            backend.sites.modules[path].register_forward_hook(lambda module, args, out: out + push * torch.tanh(args[0][..., :64])) for path in paths[:5]
        ]
        if recomputed:
            backend.enable_gradient_checkpointing()

        def loss():
            return backend.predict(latents, levels, told).square().mean()

        value = loss()
        value.backward()
        direction = push.grad / push.grad.norm()
        with torch.no_grad():
            push += 1e-2 * direction
            up = loss()
            push -= 2e-2 * direction
            down = loss()
        for handle in handles:
            handle.remove()
    assert float(up - down) / 2e-2 == pytest.approx(float(push.grad.norm()), rel=0.02)


def test_flux_trains(flux, tmp_path):
    before = weights(flux)
    one = run(*flux_backend(flux), tmp_path / "one")
    two = run(*flux_backend(flux), tmp_path / "two", gradient_checkpointing=True)
    assert [row["loss"] for row in one.log] == pytest.approx([row["loss"] for row in two.log], rel=1e-4)
    assert same(weights(flux), before) and one.adapter.metadata["base_family"] == "flux"


def test_texts_of_other_lengths_share_a_batch(comfy):
    """A UNet's cross-attention repeats the shorter text, as the host's sampler does, so nothing changes; joint attention pads it."""
    for family, exact in (("sd15", True), ("sd3", False)):
        backend, _ = backend_for(family)
        context, more = tiny_models.conditioning(family, seed=9)[0]
        double = torch.cat([context, context.flip(1)], dim=1)
        with torch.inference_mode(False):
            backend.register("double", [[double, more]])
        noisy, levels = torch.randn(2, *tiny_models.TINY[family].latent), torch.tensor([0.4, 0.4])
        with backend.session(), torch.no_grad():
            both = backend.predict(noisy, levels, backend.encode_captions(["double", "conditioning 0"]))
            alone = backend.predict(noisy[1:], levels[1:], backend.encode_captions(["conditioning 0"]))
        assert both.isfinite().all()
        assert torch.allclose(both[1:], alone, atol=1e-4) == exact


def test_noise_levels_are_those_of_the_family(comfy):
    """SD3's logit-normal times are shifted by 3 (median 3/4); SD1.5's are its own thousand sigmas, all as likely."""
    generator = torch.Generator().manual_seed(0)
    flow = backend_for("sd3")[0].sample_noise_levels(4001, generator, (8, 8))
    assert flow.median() == pytest.approx(0.75, abs=0.02) and flow.min() > 0 and flow.max() < 1
    backend, _ = backend_for("sd15")
    discrete = backend.sample_noise_levels(4000, generator, (8, 8))
    table = backend.model_sampling.sigmas
    assert bool(torch.isin(discrete, table).all()) and discrete.median() == pytest.approx(float(table[500]), rel=0.1)
