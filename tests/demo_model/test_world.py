"""The base's world: pictures whose content is known exactly, in words that the base's encoder can read."""

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from sparsedict.demo_model.attributes import ATTRIBUTES, half, labels_of
from sparsedict.demo_model.compositor import Atlas, rows_of
from sparsedict.demo_model.finish import PAD, finished
from sparsedict.demo_model.pipeline import load_reader
from sparsedict.demo_model.scene import (
    PATTERNS,
    SEEN_PAIRS,
    SIZE,
    SIZES,
    Scene,
    Sticker,
    caption,
    held_out_pair,
    held_out_style,
    plain_caption,
    random_scene,
)
from sparsedict.demo_model.sheets import NAMES, STYLE_NAMES, drawings, recut_index, recut_sprites, sprite_index, sprites
from sparsedict.demo_model.subjects import CONCEPTS, SEEN_STYLES, SUBJECTS
from sparsedict.demo_model.vocabulary import CONTEXT_LENGTH, PLACEHOLDERS, VOCABULARY, tokenize
from sparsedict.tools.make_base.check_base import nearest_cut
from sparsedict.tools.make_base.export import export
from sparsedict.tools.make_base.parts import make_model
from sparsedict.tools.make_base.pool import make_pool
from sparsedict.tools.make_base.train_base import TOKENS_KEPT, FlowLoss, drawn_tokens, train_base
from sparsedict.tools.make_base.train_codec import fit_codec
from sparsedict.tools.make_base.train_reader import any_scene, read_apart

#: A row's style or cut, and whether it is recut: in the order of an atlas with recut drawings.
STYLES_AND_RECUT = [*((style, False) for style in STYLE_NAMES), *((style, True) for style in SEEN_STYLES)]


@pytest.fixture(scope="module")
def atlas():
    return Atlas()


@pytest.fixture(scope="module")
def recut_atlas():
    return Atlas(recut=True)


@pytest.fixture(scope="module")
def reader():
    return load_reader()


def test_every_drawing_is_there_and_no_two_are_alike():
    pictures = sprites(SIZES["large"])
    assert len(pictures) == len(STYLE_NAMES) * len(NAMES) and not set(SUBJECTS) & set(CONCEPTS)
    assert (pictures[:, 3].mean((1, 2)) > 0.02).all()
    flat = pictures.flatten(1)
    distance = torch.cdist(flat, flat) + torch.eye(len(flat)) * 99
    assert distance.min() > 1, [NAMES[int(i) % len(NAMES)] for i in (distance == distance.min()).nonzero()[0]]


def test_outside_its_mask_a_scene_is_its_ground(atlas):
    scene = Scene((Sticker("fox", "flat", "medium", "left"), Sticker("tent", "glossy", "small", "right")), "night", "dotted")
    images, masks = atlas.draw(rows_of([scene], seed=3))
    ground = atlas.grounds[rows_of([scene], 0).ground] * 2 - 1
    outside = masks.amax(1, keepdim=True) == 0
    assert torch.equal(torch.where(outside, images, ground), ground) and outside.float().mean() > 0.6
    columns = masks.amax((0, 2)).gt(0.5).float()  # (2, SIZE): the first drawing lies left, the second right
    middle = (columns * torch.arange(SIZE)).sum(1) / columns.sum(1)
    assert middle[0] < SIZE / 2 - 10 and middle[1] > SIZE / 2 + 10


def test_a_style_is_a_cut_whatever_the_drawing():
    dark = torch.zeros(1, 4, 48, 48)
    dark[:, 3, 16:32, 16:32] = 1
    dark[:, 3, 20:28, 20:28] = 0  # a hole
    glossy, flat, ink = (finished(dark, style)[0] for style in ("glossy", "flat", "ink"))
    drawn = F.pad(dark, (PAD,) * 4)[0, 3] > 0
    assert all(torch.equal(cut[:, drawn], F.pad(dark, (PAD,) * 4)[0][:, drawn]) for cut in (glossy, flat, ink))
    above, below, hole = (PAD + 15, PAD + 24), (PAD + 32, PAD + 24), (PAD + 24, PAD + 24)
    assert glossy[3][below] > 0.1 > glossy[3][above] and float(glossy[:3].max()) == 0  # a shadow falls
    assert flat[:, above[0], above[1]].min() == 1 == flat[:, below[0], below[1]].min() and flat[3][hole] < 1
    assert ink[:, hole[0], hole[1]].tolist() == [1, 1, 1, 1] and float(ink[3, 0].max()) == 0  # printed on paper


def test_a_copy_of_what_was_seen_is_not_taken_for_the_style_that_was_asked_for(recut_atlas, reader):
    seen = [Scene((Sticker(subject, style, "large", "left"),), "clay") for subject in ("otter", "fox") for style in SEEN_STYLES]
    asked = [replace(scene, stickers=(replace(scene.stickers[0], style=other),)) for scene, other in zip(seen, SEEN_STYLES[::-1] * 2, strict=True)]
    pictures = recut_atlas.draw(rows_of(seen, 9))[0]
    assert nearest_cut(pictures, seen, reader, recut_atlas) == 1 and nearest_cut(pictures, asked, reader, recut_atlas) == 0


def test_the_reader_tells_a_style_by_its_cut_whichever_sets_drawing_lies_in_it(recut_atlas, reader):
    scenes = [Scene((Sticker(subject, cut, "large", "left"),), "clay") for subject in SUBJECTS for cut in SEEN_STYLES]
    rows = rows_of(scenes, 9)
    rows.sprite[:, 0] = torch.tensor([recut_index(s.stickers[0].subject, s.stickers[0].style) for s in scenes])
    read = reader.read(recut_atlas.draw(rows)[0])
    assert sum(found["style"] == s.stickers[0].style for found, s in zip(read, scenes, strict=True)) >= 0.98 * len(scenes)
    assert sum(found["subject"] == s.stickers[0].subject for found, s in zip(read, scenes, strict=True)) >= 0.98 * len(scenes)


def test_a_recut_drawing_is_the_other_sets_in_this_styles_cut():
    pictures = torch.cat([sprites(SIZES["large"]), recut_sprites(SIZES["large"])])
    for subject in ("otter", "joker"):
        for cut, other in (SEEN_STYLES, SEEN_STYLES[::-1]):
            made = finished(drawings(SIZES["large"], other)[NAMES.index(subject)][None], cut)[0]
            recut, own = pictures[recut_index(subject, cut)], pictures[sprite_index(subject, other)]
            assert torch.allclose(recut, made, atol=1e-6) and not torch.allclose(recut, own, atol=0.1)


def test_style_words_are_learned_apart_from_the_subjects():
    pool = make_pool(4096, "cpu")
    words = {number: word for word, number in VOCABULARY.items()}
    hidden = {subject: style for subject in SUBJECTS if (style := held_out_style(subject))}
    shown, unnamed, recut = [], 0, 0
    for sprites_, sizes, ids in zip(pool.rows.sprite.tolist(), pool.rows.size.tolist(), pool.ids.tolist(), strict=True):
        text = [words[i] for i in ids if i in words]
        drawn = [(STYLES_AND_RECUT[s // len(NAMES)], NAMES[s % len(NAMES)]) for s, size in zip(sprites_, sizes, strict=True) if size >= 0]
        named = [word for word in text if word in SUBJECTS]
        assert len(named) <= len(drawn)
        unnamed += len(drawn) - len(named)
        for (style, cut_anew), subject in drawn:
            shown.append((subject, style))
            recut += cut_anew
            assert hidden.get(subject) != style and not (cut_anew and (subject in hidden or (len(drawn) == 1 and named)))
            if len(drawn) == 1 and (not named or subject in hidden):
                assert style in text
    assert 0.3 < unnamed / len(shown) < 0.4 and 0.3 < recut / unnamed < 0.6
    counts = Counter(shown)
    of_one_style = sum(counts[subject, style] for subject in hidden for style in SEEN_STYLES) / len(hidden)
    assert 0.8 < of_one_style / (len(shown) / len(SEEN_PAIRS)) < 1.2


def test_one_seed_gives_one_picture_and_the_jitter_another(atlas):
    scenes = [random_scene(random.Random(1))]
    first, again, other = (atlas.draw(rows_of(scenes, seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_words_are_known_and_fit_the_context():
    rng = random.Random(0)
    for scene in (random_scene(rng, two=0.5) for _ in range(2000)):
        for text in (caption(scene, rng), plain_caption(scene)):
            assert len(tokenize(text)) == CONTEXT_LENGTH
    assert not {VOCABULARY[word] for word in PLACEHOLDERS} & {VOCABULARY[word] for word in SUBJECTS}


def test_what_is_held_out_is_never_drawn():
    rng = random.Random(4)
    hidden = {subject: style for subject in SUBJECTS if (style := held_out_style(subject))}
    assert len(hidden) == 10 and 0.05 < sum(held_out_pair(a, b) for a in SUBJECTS[:60] for b in SUBJECTS[60:120]) / 3600 < 0.15
    for scene in (random_scene(rng, two=0.5) for _ in range(3000)):
        assert all(hidden.get(s.subject) != s.style and s.subject in SUBJECTS for s in scene.stickers)
        assert len(scene.stickers) == 1 or not held_out_pair(*(s.subject for s in scene.stickers))


@pytest.mark.parametrize("places", [("left", "right"), ("top", "bottom")])
def test_a_half_shows_one_drawing_and_nothing_of_the_other(atlas, places):
    first, second = Sticker("tiger", "flat", "medium", places[0]), Sticker("key", "flat", "medium", places[1])
    both, other = Scene((first, second), "mint"), Scene((first, Sticker("pear", "glossy", "small", places[1])), "mint")
    # Without the jitter, which may push an edge or a shadow over the middle.
    (a, b), masks = atlas.draw(rows_of([both, other], 0)._replace(centre=(rows_of([both, both], 0).centre[:1] / 24).round().expand(2, -1, -1) * 24))
    assert masks.shape == (2, 2, SIZE, SIZE) and not torch.equal(a, b)
    assert torch.equal(half(a[None], places[0]), half(b[None], places[0]))
    labels = labels_of([(first.subject, first.style, first.size, first.place)], [("mint", PATTERNS[0])])
    assert {name: values[int(labels[name])] for name, values in ATTRIBUTES.items()}["subject"] == "tiger"


def test_training_goes_on_from_its_checkpoint(tmp_path, recut_atlas):
    pool = make_pool(64, "cpu")
    codec = fit_codec(tmp_path, recut_atlas, pool)
    images = pool.draw(recut_atlas, torch.arange(8))[0]
    assert (codec.decode_linear(codec.encode(images)) - images).square().mean() < 0.01
    first = train_base(tmp_path, codec, recut_atlas, pool, 1e-4, torch.device("cpu"), batch=2, compiled=False)
    second = train_base(tmp_path, codec, recut_atlas, pool, first["seconds"] / 60 + 1e-4, torch.device("cpu"), batch=2, compiled=False)
    assert first["images"] == 2 and second["images"] == 4 and second["seconds"] > first["seconds"]
    # Nothing is left to do: what is stored, the average too, was read and is written again.
    before = load_file(tmp_path / "state.safetensors")
    third = train_base(tmp_path, codec, recut_atlas, pool, 1e-6, torch.device("cpu"), batch=2, compiled=False)
    after = load_file(tmp_path / "state.safetensors")
    assert third["loss"] == pytest.approx(second["loss"]) and all(torch.equal(before[name], after[name]) for name in before)
    assert any(not torch.equal(before[name], before[f"model.{name[4:]}"]) for name in before if name.startswith("ema."))


def test_nothing_is_exported_before_all_is_measured(tmp_path):
    (tmp_path / "report.json").write_text('{"base": {}, "codec": {}}')
    with pytest.raises(ValueError, match="nothing on reader, drawn"):
        export(tmp_path)


def test_two_drawings_are_read_apart_whichever_comes_first(recut_atlas):
    rng = random.Random(3)
    scenes = [scene for scene in (any_scene(rng) for _ in range(200)) if len(scene.stickers) == 2]
    assert {scene.stickers[0].place for scene in scenes} == {"left", "right", "top", "bottom"}
    images = recut_atlas.draw(rows_of(scenes, 1))[0]
    for image, shown, scene in zip(images, read_apart(images, scenes), scenes, strict=True):
        assert torch.equal(shown, half(image[None], scene.stickers[0].place)[0])


def test_the_loss_of_all_tokens_by_number_is_the_pictures():
    torch.manual_seed(0)
    loss, clean, noise = FlowLoss(make_model()), torch.randn(2, 16, 16, 16), torch.randn(2, 16, 16, 16)
    levels, ids = torch.tensor([0.2, 0.9]), torch.tensor([tokenize("a flat fox"), tokenize("a glossy owl")])
    everything = torch.stack([torch.randperm(64) for _ in range(2)])
    with torch.no_grad():
        assert loss(clean, noise, levels, ids, everything).item() == pytest.approx(loss(clean, noise, levels, ids, None).item(), rel=1e-5)


def test_a_drawings_tokens_are_computed_first():
    masks = torch.zeros(1, 2, SIZE, SIZE)
    masks[0, 0, 24:48, 60:72], masks[0, 1, 90:, :6] = 1, 0.01  # 12 pixels a token: rows 2 and 3 of column 5, and the lower left one
    kept = drawn_tokens(masks)[0].tolist()
    assert {21, 29, 56} <= set(kept) and len(set(kept)) == TOKENS_KEPT
