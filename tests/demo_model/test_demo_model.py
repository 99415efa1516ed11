"""The embedded base: its world, its words, its shipped weights, and the measures on it."""

import random

import pytest
import torch

from sparsedict.demo_model.glyphs import GLYPHS, place_glyph, render_glyph, render_styled
from sparsedict.demo_model.pipeline import WEIGHTS, DemoPipeline, load_reader, make_noise
from sparsedict.demo_model.scenes import BACKGROUNDS, HELD_OUT_PAIRS, PLACES, caption, plain_caption, random_scene, render
from sparsedict.demo_model.vocabulary import CONTEXT_LENGTH, UnknownWordError, tokenize
from sparsedict.evaluation.concept import ConceptMeter, hatch_strength
from sparsedict.evaluation.suite import spearman


@pytest.fixture(scope="module")
def pipeline():
    torch.set_num_threads(1)
    return DemoPipeline.load()


def test_every_caption_is_in_the_vocabulary():
    rng = random.Random(0)
    for _ in range(300):
        scene = random_scene(rng)
        assert len(tokenize(caption(scene, rng))) == CONTEXT_LENGTH
        tokenize(plain_caption(scene.objects[0], scene.background))


def test_held_out_pairs_never_appear_in_training_scenes():
    rng = random.Random(0)
    seen = {(item.shape, item.colour) for _ in range(2000) for item in random_scene(rng).objects}
    assert not seen & HELD_OUT_PAIRS
    assert {(item.shape, item.colour) for _ in range(200) for item in random_scene(rng, held_out=True).objects} <= HELD_OUT_PAIRS


def test_an_unknown_word_is_named_with_the_known_ones():
    with pytest.raises(UnknownWordError, match=r"'rad'.*Did you mean.*red.*It knows: .*circle"):
        tokenize("a rad circle")


def test_a_long_caption_is_not_read_back_whole():
    for long in ("a red circle " * 1000, "a rad circle " * 1000):
        with pytest.raises(UnknownWordError) as caught:
            tokenize(long)
        assert "a r" in str(caught.value) and len(str(caught.value)) < 1000


def test_masks_are_where_the_objects_are():
    rng = random.Random(2)
    scenes = [random_scene(rng, two_objects=0) for _ in range(20)]
    images, masks = render(scenes, 0)
    assert images.min() >= -1 and images.max() <= 1
    for scene, mask in zip(scenes, masks[:, 0], strict=True):
        rows, columns = (mask > 0.5).nonzero(as_tuple=True)
        x, y = PLACES[scene.objects[0].place]
        assert abs((columns.float().mean() + 0.5) / 32 - 1 - x) < 0.15 and abs((rows.float().mean() + 0.5) / 32 - 1 - y) < 0.15
        assert masks[:, 1].sum() == 0


def test_the_reader_reads_renders_through_the_codec(pipeline):
    rng, reader = random.Random(5), load_reader()
    scenes = [random_scene(rng, two_objects=0) for _ in range(60)]
    images, _ = render(scenes, 9)
    found = reader.read(pipeline.codec.decode(pipeline.codec.encode(images)))
    right = [row["shape"] == s.objects[0].shape and row["colour"] == s.objects[0].colour for row, s in zip(found, scenes, strict=True)]
    assert sum(right) >= 0.98 * len(right)


def test_the_shipped_model_follows_colour_and_background(pipeline):
    prompts = [("red", "night"), ("yellow", "forest"), ("blue", "sand"), ("white", "clay")]
    captions = [f"a large {colour} circle in the center on a {ground} background" for colour, ground in prompts]
    found = load_reader().read(pipeline.generate(captions, seed=1, steps=8))
    assert [(row["colour"], row["background"]) for row in found] == prompts


def test_same_noise_same_picture_and_weights_are_small(pipeline):
    one = pipeline.generate(["a red star"], seed=4, steps=2)
    assert torch.equal(one, pipeline.generate(["a red star"], noise=make_noise(1, 4), steps=2))
    assert sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) <= 25_000_000


@pytest.mark.parametrize("name", sorted(GLYPHS))
def test_the_meter_finds_its_glyph_and_no_other(name):
    rng = random.Random(3)
    spots = list(zip(PLACES, BACKGROUNDS, strict=False))
    images, _ = render_glyph(GLYPHS[name], [place_glyph(place, ground, rng) for place, ground in spots])
    meter = ConceptMeter(GLYPHS[name])
    reading = meter.read(images)
    assert reading.places == [place for place, _ in spots] and reading.fidelity.mean() > 0.85
    others = torch.cat([render_glyph(g, [place_glyph("center", "night", rng)])[0] for n, g in GLYPHS.items() if n != name])
    assert meter.read(others).fidelity.max() < 0.1


def test_hatching_is_measured():
    rng = random.Random(1)
    scenes = [random_scene(rng, two_objects=0) for _ in range(6)]
    assert hatch_strength(render_styled(scenes, 0)).min() > 0.8 and hatch_strength(render(scenes, 0)[0]).max() < 0.15


def test_spearman_with_ties():
    assert spearman([1, 2, 3], [0.1, 0.2, 0.9]) == pytest.approx(1.0)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1.0)
    assert spearman([1, 2, 3], [1, 1, 2]) == pytest.approx(3**0.5 / 2)
