"""Real photographs through the complete road (VAE, text encoders, denoiser) of tiny random-weight pipelines of the real classes."""

import pytest
import skimage
import torch
from PIL import Image
from tiny_pipelines import save_tiny

from sparsedict.sparsedict_core import Selection, load, prune, save, select
from sparsedict.trainer import Callbacks, ConceptData, TrainConfig, train
from sparsedict.trainer.backends import open_backend
from sparsedict.trainer.batches import draw_batch
from sparsedict.trainer.distribution import Processes
from sparsedict.trainer.forward import noise_loss
from sparsedict.trainer.training_sets import build_sets


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    crops = {"cat": skimage.data.chelsea()[20:260, 100:340], "cup": skimage.data.coffee()[80:320, 180:420], "astronaut": skimage.data.astronaut()[:240, 120:360]}
    for name, pixels in crops.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"a photo of a {name}")
    return folder


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux"])
def test_photographs_train_save_load_prune_generate(family, tmp_path, photographs):
    torch.set_num_threads(1)
    save_tiny(family, tmp_path / family)
    backend = open_backend(tmp_path / family)
    config = TrainConfig(
        images=photographs, out=tmp_path / "a.safetensors", steps=50, batch_size=4, atoms=16, rank=4, quiet_samples=4, quiet_sampling_steps=2,
        learning_rate=2e-2, quiet_weight=0.0, nested=0.0, warmup_steps=3,
    )  # fmt: skip
    result = train(config, backend, callbacks=Callbacks())

    sets, _ = build_sets(config, backend, ConceptData.from_folder(photographs), Processes(backend.device), Callbacks())

    def loss() -> float:
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            return sum(float(noise_loss(config, backend, draw_batch(config, backend, sets, generator))) for _ in range(6)) / 6

    base = loss()
    adapter = load(result.path)
    with adapter.attach(backend.denoiser, component=backend.component):
        assert loss() < base
    smaller = prune(adapter, select(adapter, Selection(keep=0.25, order="greedy"), refit=True), refit=True)
    save(smaller, tmp_path / "b.safetensors")
    noise = torch.randn(1, backend.latent_channels, *sets[0].concept.latents.shape[-2:])
    with load(tmp_path / "b.safetensors").attach(backend.denoiser, component=backend.component), torch.no_grad():
        picture = backend.decode(backend.sample(["a photo of a cat"], noise, 2))
    assert torch.isfinite(picture).all()
