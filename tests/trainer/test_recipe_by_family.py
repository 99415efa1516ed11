"""The default recipe, quiet term and nesting included, on each diffusers family: photographs of several shapes, and recomputed blocks.

`test_photographs` shows the road without those. The pipelines are tiny and have random weights: parts fit, pictures do not become good.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_pipelines import SIDE, save_tiny

from sparsedict.sparsedict_core import Selection, load, prune, save, select
from sparsedict.trainer import Callbacks, ConceptData, TrainConfig, train
from sparsedict.trainer.backends import open_backend

FAMILIES = ("sd15", "sdxl", "sd3", "flux")
PHOTOS = {  # scikit-image's own pictures, cropped (top, left, height, width) to the subject: upright, square and lying
    "cat": ("chelsea", (30, 60, 240, 240), "a photo of a zorp cat"),
    "coffee": ("coffee", (40, 100, 300, 400), "a cup of zorp coffee on a table"),
    "astronaut": ("astronaut", (0, 130, 260, 200), "a portrait of a zorp astronaut"),
}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """A folder as a user has it: JPEGs with a .txt each."""
    import skimage.data

    folder = tmp_path_factory.mktemp("photographs")
    for name, (picture, (top, left, height, width), caption) in PHOTOS.items():
        pixels = getattr(skimage.data, picture)()[top : top + height, left : left + width]
        Image.fromarray(pixels).save(folder / f"{name}.jpg", quality=95)
        (folder / f"{name}.txt").write_text(caption, encoding="utf-8")
    return folder


@pytest.fixture(params=FAMILIES)
def opened(request, tmp_path):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return open_backend(save_tiny(request.param, tmp_path / "base"))


def settings(folder: Path, **more) -> TrainConfig:
    chosen = {"out": folder / "a.safetensors", "resolution": SIDE, "steps": 150, "batch_size": 8, "warmup_steps": 5, "quiet_samples": 6,
              "quiet_sampling_steps": 4, "placeholder": "zorp", **more}  # fmt: skip
    return TrainConfig(**chosen)


def test_the_default_recipe_learns_and_leaves_the_base_alone(opened, photographs, tmp_path):
    before = {name: value.clone() for name, value in opened.denoiser.state_dict().items()}
    config = settings(tmp_path, images=photographs)
    result = train(config, opened, callbacks=Callbacks())

    # The same rows, noise and levels, with and without what was learned: a run's own losses are of other levels at each step.
    data = ConceptData.from_folder(photographs)
    whole = load(result.path)
    assert len(data) == 3 and whole.metadata["training"]["images"] == 3 and whole.metadata["trigger_words"] == ["zorp"]
    assert loss_on(opened, data, whole) < 0.98 * loss_on(opened, data)
    assert all(torch.equal(before[name], value) for name, value in opened.denoiser.state_dict().items())

    kept = select(whole, Selection(keep=0.25, order="greedy"), refit=True)
    small = prune(whole, kept, refit=True)
    save(small, tmp_path / "small.safetensors")
    small = load(tmp_path / "small.safetensors")
    assert small.atom_count == kept.kept < whole.atom_count
    assert (tmp_path / "small.safetensors").stat().st_size < result.path.stat().st_size

    noise = torch.randn(1, opened.latent_channels, SIDE // opened.latent_scale, SIDE // opened.latent_scale, generator=torch.Generator().manual_seed(2))
    pictures = [generate(opened, noise), generate(opened, noise, whole), generate(opened, noise, small), generate(opened, noise)]
    assert all(picture.shape == (1, 3, SIDE, SIDE) and bool(torch.isfinite(picture).all()) for picture in pictures)
    assert not torch.equal(pictures[0], pictures[1]) and not torch.equal(pictures[1], pictures[2])
    assert torch.equal(pictures[0], pictures[3])


def generate(backend, noise, adapter=None):
    if adapter is None:
        return backend.decode(backend.sample(["a zorp"], noise, 3))
    with adapter.attach(backend.denoiser, component=backend.component):
        return generate(backend, noise)


@torch.no_grad()
def loss_on(backend, data, adapter=None) -> float:
    """Mean loss over the photographs at fixed noise and levels."""
    from sparsedict.trainer.batches import concept_rows
    from sparsedict.trainer.data import make_buckets
    from sparsedict.trainer.losses import row_losses

    if adapter is not None:
        with adapter.attach(backend.denoiser, component=backend.component):
            return loss_on(backend, data)
    generator, found = torch.Generator().manual_seed(3), []
    for bucket in make_buckets(data, SIDE, backend.size_multiple):
        rows = concept_rows(backend, data, bucket)
        repeated = [i for i in range(len(rows.latents)) for _ in range(16)]
        latents, conditioning = rows.latents[repeated], {name: value[repeated] for name, value in rows.conditioning.items()}
        levels = backend.sample_noise_levels(len(latents), generator, (latents.shape[-2], latents.shape[-1]))
        noise = torch.randn(latents.shape, generator=generator)
        predicted = backend.predict(backend.add_noise(latents, noise, levels), levels, conditioning)
        found.append(row_losses(predicted, backend.target(latents, noise, levels)))
    return float(torch.cat(found).mean())


def test_recomputed_blocks_give_the_same_gradients(opened, photographs, tmp_path):
    """Gradient checkpointing: thresholds, prefixes and the quiet term's updates must survive the second forward."""
    more = {"images": photographs, "steps": 4, "nested": 0.5, "quiet_ramp": (0.0, 0.5), "anneal_share": 0.25}
    plain = train(settings(tmp_path / "plain", **more), opened, callbacks=Callbacks())
    recomputed = train(settings(tmp_path / "recomputed", gradient_checkpointing=True, **more), opened, callbacks=Callbacks())
    assert [entry["loss"] for entry in recomputed.log] == pytest.approx([entry["loss"] for entry in plain.log], rel=1e-5)
    for (key, expected), (_, found) in zip(plain.adapter.state_dict().items(), recomputed.adapter.state_dict().items(), strict=True):
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-5), key
    # The base is as it was found, so that what is done with it next costs no second forward.
    assert not any(getattr(module, "gradient_checkpointing", False) for module in opened.denoiser.modules())
