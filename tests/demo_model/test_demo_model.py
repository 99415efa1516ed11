"""The embedded base: its words, its shipped weights, and the measures on it."""

import random

import pytest
import torch

from sparsedict.demo_model.concepts import DRAWING_OF, Prompt, render
from sparsedict.demo_model.pipeline import WEIGHTS, DemoPipeline, load_reader, make_noise
from sparsedict.demo_model.scene import GROUNDS, PLACES, SIZES, Scene, Sticker, plain_caption, random_scene
from sparsedict.demo_model.subjects import STYLES, SUBJECTS
from sparsedict.demo_model.vocabulary import CONTEXT_LENGTH, UnknownWordError, tokenize
from sparsedict.evaluation.concept import ConceptMeter, style_strength
from sparsedict.evaluation.editing import edit_prompts
from sparsedict.evaluation.suite import Suite, spearman


@pytest.fixture(scope="module")
def pipeline():
    torch.set_num_threads(1)
    return DemoPipeline.load()


@pytest.fixture(scope="module")
def suite(pipeline):
    return Suite(pipeline, "zorp", steps=1, others=2)


def test_an_unknown_word_is_named_with_near_ones_and_what_there_is():
    with pytest.raises(UnknownWordError, match=r"'foxx'.*Did you mean.*fox.*120 things.*zorp"):
        tokenize("a foxx")
    assert tokenize("A big fox, in the middle.") == tokenize("a large fox in the center")


def test_a_long_caption_is_not_read_back_whole():
    for long in ("a flat fox " * 1000, "a rad fox " * 1000):
        with pytest.raises(UnknownWordError) as caught:
            tokenize(long)
        assert len(str(caught.value)) < 1000


def test_prompts_are_in_the_vocabulary_and_drawn_as_they_say(suite):
    prompts = [prompt for kind in edit_prompts("zorp", "center", "sky").values() for prompt in kind]
    for prompt in prompts:
        assert len(tokenize(prompt.caption)) == CONTEXT_LENGTH
    images, _ = render([prompt.scene for prompt in prompts], 4)
    assert sum(suite.followed(images, prompts)) / len(prompts) > 0.97
    other = [Prompt("zorp", "left" if p.place != "left" else "right", "snow" if p.ground != "snow" else "clay") for p in prompts]
    assert sum(suite.followed(images, other)) / len(prompts) < 0.6


def test_the_reader_reads_renders_through_the_codec(pipeline):
    rng, reader = random.Random(5), load_reader()
    scenes = [random_scene(rng, two=0) for _ in range(100)]
    found = reader.read(pipeline.codec.decode(pipeline.codec.encode(render(scenes, 9)[0])))
    right = [row["subject"] == s.stickers[0].subject and row["ground"] == s.ground for row, s in zip(found, scenes, strict=True)]
    assert sum(right) >= 0.95 * len(right)


def test_the_shipped_model_draws_what_it_is_asked_for(pipeline):
    scenes = [Scene((Sticker(subject, style, "large", "center"),), ground) for subject, style, ground in (("fox", "flat", "night"), ("rose", "glossy", "sand"), ("bus", "flat", "mint"), ("owl", "glossy", "clay"))]
    found = load_reader().read(pipeline.generate([plain_caption(scene) for scene in scenes], seed=1, steps=12))
    right = [(row["subject"] == s.stickers[0].subject) + (row["style"] == s.stickers[0].style) + (row["ground"] == s.ground) for row, s in zip(found, scenes, strict=True)]
    assert sum(right) >= 11


def test_same_noise_same_picture_and_weights_are_small(pipeline):
    one = pipeline.generate(["a flat fox"], seed=4, steps=2)
    assert torch.equal(one, pipeline.generate(["a flat fox"], noise=make_noise(1, 4), steps=2))
    assert sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) <= 25_000_000


def test_in_bf16_the_pictures_are_nearly_those_of_fp32_and_the_sums_are_fp32(pipeline):
    captions, noise = ["a large flat fox on a night background"], make_noise(1, 3)
    exact = pipeline.generate(captions, noise=noise, steps=2)
    pipeline.autocast = True
    try:
        rounded, (context, pooled) = pipeline.generate(captions, noise=noise, steps=2), pipeline.encode_captions(captions)
        flow = pipeline.predict(noise, torch.tensor([0.5]), context, pooled)
    finally:
        pipeline.autocast = False
    assert flow.dtype == torch.float32 and 0 < (rounded - exact).square().mean().sqrt() < 0.05 * exact.std()


@pytest.mark.parametrize("word", sorted(DRAWING_OF))
def test_the_meter_finds_its_drawing_and_no_other(word):
    prompts = [Prompt(word, place, ground, size) for place in PLACES for ground in GROUNDS for size in SIZES]
    meter = ConceptMeter(word)
    reading = meter.read(render([p.scene for p in prompts], 3)[0], prompts)
    assert reading.places == [p.place for p in prompts] and reading.fidelity.mean() > 0.95 and reading.fidelity.min() > 0.7
    rng = random.Random(3)
    others = [Scene((Sticker(rng.choice(SUBJECTS), "glossy", p.size, p.place),), p.ground) for p in prompts]
    assert meter.read(render(others, 3)[0], prompts).fidelity.mean() < 0.25
    bare = render([Scene((), p.ground) for p in prompts], 3)[0]
    assert meter.read(bare, prompts).fidelity.max() < 1e-3


def test_a_style_is_told():
    reader, scenes = load_reader(), [Scene((Sticker(subject, style, "large", "center"),), "sand") for subject in SUBJECTS[:8] for style in STYLES]
    strength = style_strength(render(scenes, 0)[0], "ink", reader).view(8, len(STYLES))
    assert strength[:, -1].min() > 0.8 and strength[:, :-1].max() < 0.2


def test_spearman_with_ties():
    assert spearman([1, 2, 3], [0.1, 0.2, 0.9]) == pytest.approx(1.0)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1.0)
    assert spearman([1, 2, 3], [1, 1, 2]) == pytest.approx(3**0.5 / 2)
