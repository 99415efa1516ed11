"""Masks: where in a picture the loss counts, and what cannot be meant."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from trainer.picture_folders import picture, told

from sparsedict.sparsedict_core.errors import DataError
from sparsedict.trainer import Callbacks, TrainConfig
from sparsedict.trainer.batches import CONCEPT, concept_rows, draw_batch
from sparsedict.trainer.data import Bucket, ConceptData
from sparsedict.trainer.distribution import Processes
from sparsedict.trainer.forward import noise_loss
from sparsedict.trainer.losses import row_losses
from sparsedict.trainer.training_sets import build_sets


def half_mask(path, size=(8, 8)):
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    path.parent.mkdir(exist_ok=True)
    mask.save(path)


@pytest.mark.parametrize("place", ["a-masklabel.png", "mask/a.png", "masks/a.png"])
def test_a_mask_is_found_and_is_no_training_picture(tmp_path, place):
    picture(tmp_path / "a.png")
    half_mask(tmp_path / place, (16, 16))
    (item,) = ConceptData.from_folder(tmp_path, caption="a thing")
    assert item.mask.shape == (1, 8, 8) and item.mask[:, :, :3].min() > 0.9 and item.mask[:, :, 5:].max() < 0.1
    plain = ConceptData.from_folder(tmp_path, caption="a thing", masks="off")
    assert plain[0].mask is None and "masks are off" in told(plain)
    assert plain.content_hash() != ConceptData([item]).content_hash()


def test_transparency_is_a_mask_when_asked(tmp_path):
    picture(tmp_path / "a.png", colour=(9, 9, 9, 0), mode="RGBA")
    picture(tmp_path / "b.png")
    plain, masked = (ConceptData.from_folder(tmp_path, caption="a thing", masks=masks) for masks in ("files", "alpha"))
    assert plain[0].mask is None and "laid on white: a.png" in told(plain)
    assert masked[0].mask.max() == 0 and masked[1].mask is None


@pytest.mark.parametrize("size, colour, words", [((8, 16), 255, "another shape"), ((8, 8), 0, "without white")])
def test_a_mask_that_cannot_be_meant_is_named(tmp_path, size, colour, words):
    picture(tmp_path / "a.png")
    picture(tmp_path / "a-masklabel.png", size, colour, "L")
    with pytest.raises(DataError, match=words):
        ConceptData.from_folder(tmp_path, caption="a thing")


def test_the_loss_counts_inside_the_mask_only():
    target, weights = torch.zeros(2, 3, 4, 4), torch.ones(2, 1, 4, 4)
    predicted = torch.ones(2, 3, 4, 4)
    weights[0, :, :, 2:] = 0
    predicted[0, :, :, 2:] = 100  # outside of the mask
    torch.testing.assert_close(row_losses(predicted, target, weights), torch.ones(2))
    assert torch.equal(row_losses(predicted, target), row_losses(predicted, target, None))


def test_a_mask_goes_with_its_picture_into_the_batch(backend, tmp_path):
    picture(tmp_path / "a.png", (64, 64))
    picture(tmp_path / "b.png", (64, 64))
    half_mask(tmp_path / "a-masklabel.png", (64, 64))
    data = ConceptData.from_folder(tmp_path, placeholder="zorp", default_caption=backend.default_caption)
    rows = concept_rows(backend, data, Bucket((96, 96), [0, 1]), flip=True, unmasked_weight=0.25)
    assert rows.weights.shape == (4, 1, 16, 16)
    assert rows.weights[0, 0, :, 0].min() == 1 and rows.weights[0, 0, :, -1].max() == 0.25
    assert rows.weights[1, 0, :, 0].max() == 0.25 and bool((rows.weights[2:] == 1).all())  # mirrored; without a mask

    config = TrainConfig(batch_size=4, quiet_samples=4, quiet_sampling_steps=1, out=tmp_path / "a.safetensors", gradient_accumulation=2)
    sets, _ = build_sets(config, backend, data, Processes(backend.device), Callbacks())
    batch = draw_batch(config, backend, sets, torch.Generator().manual_seed(0))
    assert batch.weights.shape == (4, 1, 16, 16) and bool((batch.weights[batch.kind != CONCEPT] == 1).all())
    outside = batch.latents.clone()
    outside[batch.weights.expand_as(outside) == 0] += 5
    with torch.no_grad():
        parts = [float(noise_loss(config, SameEverywhere(backend), part)) for part in (batch, *batch.parts(2))]
        batch.latents = outside
        assert float(noise_loss(config, SameEverywhere(backend), batch)) == pytest.approx(parts[0])
    assert sum(parts[1:]) / 2 == pytest.approx(parts[0])


class SameEverywhere:
    """A base that predicts nothing, so that its loss depends on the target alone."""

    def __init__(self, backend):
        self.device, self.prediction, self.add_noise, self.target, self.snr = backend.device, backend.prediction, backend.add_noise, backend.target, backend.snr

    def predict(self, noisy, levels, conditioning):
        return torch.zeros_like(noisy)
