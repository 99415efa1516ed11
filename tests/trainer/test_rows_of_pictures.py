"""The rows that pictures become: their views, and the sizes that a base takes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import small_run
from small_run import zorp_data

from sparsedict.sparsedict_core.errors import TrainingError
from sparsedict.trainer import Callbacks, ConceptData, train
from sparsedict.trainer.batches import concept_rows
from sparsedict.trainer.data import make_buckets, random_part
from sparsedict.trainer.training_sets import buckets_for


def test_views_of_a_picture_are_rows_with_its_caption(backend):
    data = zorp_data()
    bucket = make_buckets(data, backend.default_size, backend.size_multiple)[0]
    plain, more = concept_rows(backend, data, bucket), concept_rows(backend, data, bucket, flip=True, crops=2, seed=1)
    assert len(more.latents) == 6 * len(plain.latents) and [row[0] for row in more.captions] == [i for i in range(3) for _ in range(6)]
    assert torch.equal(more.latents[0], plain.latents[0]) and torch.equal(more.latents, concept_rows(backend, data, bucket, True, 2, 1).latents)
    mirrored = backend.encode_images(data[0].image.flip(-1)[None])[0]
    assert torch.allclose(more.latents[3], mirrored, atol=1e-5)


def test_a_random_part_keeps_the_shape_of_the_picture():
    part = random_part(torch.zeros(3, 80, 40), torch.Generator().manual_seed(0))
    assert part.shape[1] / part.shape[2] == pytest.approx(2, rel=0.05) and 60 <= part.shape[1] <= 80


def test_a_base_of_one_size_gets_every_picture_at_that_size(tmp_path, backend):
    data = ConceptData.from_tensors([torch.zeros(3, 64, 64), torch.zeros(3, 48, 80)], "a zorp")
    assert [bucket.indices for bucket in buckets_for(backend, data, backend.default_size)] == [[0, 1]]
    with pytest.raises(TrainingError, match="96×96 only"):
        train(small_run.settings(tmp_path, resolution=128), backend, data, Callbacks())
