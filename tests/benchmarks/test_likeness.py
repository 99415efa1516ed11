"""The learned embedding tells a concept's pictures from others, and many from one; SSIM outside a subject ignores the subject."""

import pytest
import torch

from sparsedict.demo_model.pipeline import DemoPipeline
from sparsedict.evaluation.editing import structure_kept
from sparsedict.evaluation.likeness import VARIANTS, LikenessMeter
from sparsedict.evaluation.suite import Suite


@pytest.fixture(scope="module")
def meter():
    return LikenessMeter(Suite(DemoPipeline.load(), "zorp", steps=4, others=12), seed=3)


def test_the_renderer_is_nearer_than_the_base_and_the_same_picture_twice_has_no_diversity(meter):
    assert meter.rendered.cosine > 0.9 > meter.base.cosine + 0.2
    assert 0 < meter.rendered.diversity < meter.base.diversity
    one = meter.drawn(meter.varied, 5).repeat_interleave(VARIANTS, dim=0)
    same = meter.of(meter.drawn(meter.suite.prompts, 5), one)
    assert same.diversity == pytest.approx(0, abs=1e-5)


def test_another_drawing_is_further_away(meter):
    other = LikenessMeter(Suite(meter.suite.pipeline, "mib", steps=4, others=12), seed=3)
    near, far = (meter.of(m.drawn(m.suite.prompts, 5), m.drawn(m.repeated, 5)).cosine for m in (meter, other))
    assert far < near - 0.1


def test_structure_is_compared_outside_the_subject_only():
    base = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    away = torch.ones(64, 64)
    away[20:44, 20:44] = 0
    inside, outside = base.clone(), base.clone()
    inside[:, 28:36, 28:36] = 0
    outside[:, 2:10, 2:10] = 0
    assert structure_kept(base, base, away) == pytest.approx(1)
    assert structure_kept(inside, base, away) == pytest.approx(1, abs=1e-3)
    assert structure_kept(outside, base, away) < 0.99
