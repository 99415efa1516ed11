"""Pictures and captions: what is read, which size it is trained at, and what each bad input says."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sparsedict.sparsedict_core.errors import DataError
from sparsedict.trainer import Callbacks, TrainConfig, train
from sparsedict.trainer.data import ConceptData, make_buckets, resize_crop
from sparsedict.trainer.images import read_image

RED_THEN_BLUE = np.array([[[255, 0, 0], [0, 0, 255], [0, 0, 255]]], dtype=np.uint8)  # 1 high, 3 wide


def write_picture(path: Path, colour: tuple[int, int, int] = (200, 100, 50), size: tuple[int, int] = (8, 8)) -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


def write_gif(path: Path, frames: int) -> Path:
    pictures = [Image.new("RGB", (4, 4), (60 * number, 0, 0)) for number in range(frames)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:])
    return path


def png_bytes(width: int, height: int, rows: bytes) -> bytes:
    """An 8-bit grey PNG by hand: libraries refuse to write the broken ones."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def images_of(*sizes: tuple[int, int]) -> ConceptData:
    """Data whose pictures have these (H, W)."""
    return ConceptData.from_tensors([torch.zeros(3, *size) for size in sizes], "a picture")


def one_sentence(error: pytest.ExceptionInfo[DataError], *names: str) -> None:
    text = str(error.value)
    assert "\n" not in text and not text.endswith(".")
    for name in names:
        assert name in text, text


# --- reading ---


def test_a_picture_becomes_three_channels_from_minus_one_to_one(tmp_path):
    Image.fromarray(RED_THEN_BLUE).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == torch.float32 and image.shape == (3, 1, 3)
    assert image[:, 0, 0].tolist() == [1, -1, -1] and image[:, 0, 2].tolist() == [-1, -1, 1]


def test_a_photo_taken_sideways_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise to view
    Image.fromarray(RED_THEN_BLUE).save(tmp_path / "a.png", exif=exif)
    image = read_image(tmp_path / "a.png")
    assert image.shape == (3, 3, 1)
    assert image[:, 0, 0].tolist() == [1, -1, -1]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_are_white(tmp_path, mode):
    black = (0,) * (len(mode) - 1)
    picture = Image.new(mode, (3, 1))
    for x, alpha in enumerate((0, 51, 255)):
        picture.putpixel((x, 0), (*black, alpha))
    picture.save(tmp_path / "a.png")
    torch.testing.assert_close(read_image(tmp_path / "a.png")[:, 0], torch.tensor([1.0, 0.6, -1.0]).expand(3, 3))


def test_palettes_with_and_without_transparency(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([0, 255, 0, 0, 0, 255])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "plain.png")
    picture.save(tmp_path / "clear.png", transparency=0)
    assert read_image(tmp_path / "plain.png")[:, 0].T.tolist() == [[-1, 1, -1], [-1, -1, 1]]
    assert read_image(tmp_path / "clear.png")[:, 0].T.tolist() == [[1, 1, 1], [-1, -1, 1]]


@pytest.mark.parametrize("mode, value, expected", [("L", 51, -0.6), ("1", 1, 1.0), ("CMYK", (0, 0, 0, 255), -1.0)])
def test_other_modes_become_rgb(tmp_path, mode, value, expected):
    Image.new(mode, (2, 2), value).save(tmp_path / "a.tif")
    torch.testing.assert_close(read_image(tmp_path / "a.tif"), torch.full((3, 2, 2), expected))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_keep_their_brightness_and_their_fine_steps(tmp_path, suffix):
    values = np.array([[0, 300, 301, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    expected = torch.from_numpy(values.astype(np.float32) / 65535 * 2 - 1).expand(3, 1, 5)
    torch.testing.assert_close(read_image(tmp_path / f"a.{suffix}"), expected, rtol=0, atol=1e-6)


def test_a_gif_of_one_frame_is_a_picture(tmp_path):
    assert read_image(write_gif(tmp_path / "a.gif", 1)).shape == (3, 4, 4)


def test_the_preview_behind_a_phone_photo_is_no_animation(tmp_path):
    photo, preview = Image.new("RGB", (16, 16), (255, 255, 255)), Image.new("RGB", (8, 8))
    photo.save(tmp_path / "photo.jpg", format="MPO", save_all=True, append_images=[preview])
    image = read_image(tmp_path / "photo.jpg")
    assert image.shape == (3, 16, 16) and image.min() > 0.95


# --- bad pictures ---


def empty_file(path: Path) -> None:
    path.write_bytes(b"")


def text_file(path: Path) -> None:
    path.write_text("not a picture at all")


def cut_jpeg(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path, format="JPEG")
    path.write_bytes(path.read_bytes()[:1500])


def damaged_png(path: Path) -> None:
    path.write_bytes(png_bytes(4, 4, b"\0" * 3))


def no_pixels(path: Path) -> None:
    path.write_bytes(png_bytes(0, 4, b"\0" * 4))


def bomb(path: Path) -> None:
    path.write_bytes(png_bytes(60000, 60000, b""))


def animation(path: Path) -> None:
    write_gif(path, 3)


def floats(path: Path) -> None:
    Image.fromarray(np.ones((2, 2), dtype=np.float32)).save(path, format="TIFF")


BAD_PICTURES = [
    (empty_file, "bad.png", "empty"),
    (text_file, "bad.jpg", "no known picture format"),
    (text_file, "bad.heic", "PNG or JPEG"),
    (cut_jpeg, "bad.jpg", "cannot be read"),
    (damaged_png, "bad.png", "cannot be read"),
    (no_pixels, "bad.png", ""),
    (bomb, "bad.png", "cannot be read"),
    (animation, "bad.gif", "3 frames"),
    (floats, "bad.tif", "8 or 16 bits"),
]


@pytest.mark.parametrize("make, name, words", BAD_PICTURES, ids=[f"{make.__name__}-{name}" for make, name, _ in BAD_PICTURES])
def test_a_bad_picture_among_good_ones_is_named(tmp_path, make, name, words):
    write_picture(tmp_path / "a.png")
    make(tmp_path / name)
    with pytest.raises(DataError) as error:
        ConceptData.from_folder(tmp_path, caption="a thing")
    one_sentence(error, str(tmp_path / name), words)


def test_a_missing_picture_is_named(tmp_path):
    with pytest.raises(DataError) as error:
        read_image(tmp_path / "none.png")
    one_sentence(error, "none.png")


# --- folders and captions ---


def test_a_folder_of_pictures_with_captions(tmp_path):
    write_picture(tmp_path / "b.JPG")
    write_picture(tmp_path / "a.png", size=(6, 4))
    (tmp_path / "a.txt").write_text("\ufeffa red thing\n\n  a thing, red  \n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("ein Ding auf grünem Gras", encoding="utf-8")
    (tmp_path / "notes.md").write_text("no caption")
    (tmp_path / "._a.png").write_bytes(b"what macOS leaves on a stick")
    data = ConceptData.from_folder(tmp_path)
    assert [item.name for item in data] == ["a.png", "b.JPG"]
    assert [item.captions for item in data] == [["a red thing", "a thing, red"], ["ein Ding auf grünem Gras"]]
    assert data[0].image.shape == (3, 4, 6) and len(data) == 2


@pytest.mark.parametrize("caption, expected", [
    ("a photo of {}", "a photo of zorp"), ("{word} as a {word}", "zorp as a zorp"), ("the zorp {here}", "the zorp {here}"), (None, "a photo of zorp"),
])
def test_one_caption_for_all_with_the_placeholder(tmp_path, caption, expected):
    write_picture(tmp_path / "a.png")
    write_picture(tmp_path / "b.png")
    (tmp_path / "b.txt").write_text("a {} on grass")
    data = ConceptData.from_folder(tmp_path, caption=caption, placeholder="zorp")
    assert [item.captions for item in data] == [[expected], ["a zorp on grass"]]


def test_a_missing_caption_and_a_damaged_picture_are_told_together(tmp_path):
    write_picture(tmp_path / "b.png", size=(64, 64))
    whole = (tmp_path / "b.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[:-40])  # which only decoding finds
    (tmp_path / "a.txt").write_text("a thing")
    with pytest.raises(DataError) as error:
        ConceptData.from_folder(tmp_path)
    one_sentence(error, f"{tmp_path / 'a.png'} cannot be read", str(tmp_path / "b.png"), "b.txt")


@pytest.mark.parametrize("content", [b"", b" \n\t\n"])
def test_an_empty_caption_file_is_named_even_when_there_is_a_caption_for_all(tmp_path, content):
    write_picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError) as error:
        ConceptData.from_folder(tmp_path, caption="a thing")
    one_sentence(error, str(tmp_path / "a.txt"), "empty")


def test_a_caption_in_another_encoding_is_named(tmp_path):
    write_picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes("grün".encode("latin-1"))
    with pytest.raises(DataError) as error:
        ConceptData.from_folder(tmp_path)
    one_sentence(error, str(tmp_path / "a.txt"), "UTF-8")


@pytest.mark.parametrize("caption, placeholder, words", [
    (" ", None, "empty"), ("a {} photo", None, "placeholder"), ("a photo", "zorp", "zorp"), ("a photo of {}", " ", "placeholder"),
])
def test_captions_that_cannot_be_meant(tmp_path, caption, placeholder, words):
    write_picture(tmp_path / "a.png")
    with pytest.raises(DataError) as error:
        ConceptData.from_folder(tmp_path, caption=caption, placeholder=placeholder)
    one_sentence(error, str(tmp_path), words)


def test_folders_that_hold_no_pictures(tmp_path):
    (tmp_path / "a.txt").write_text("a caption alone")
    (tmp_path / "inner").mkdir()
    write_picture(tmp_path / "inner" / "a.png")
    for folder, words in [(tmp_path, "no picture"), (tmp_path / "none", "does not exist"), (tmp_path / "inner" / "a.png", "is a file")]:
        with pytest.raises(DataError) as error:
            ConceptData.from_folder(folder, caption="a thing")
        one_sentence(error, str(folder), words)


def test_much_larger_pictures_are_shrunk_when_the_resolution_is_known(tmp_path):
    write_picture(tmp_path / "a.png", size=(100, 50))
    write_picture(tmp_path / "b.png", size=(16, 16))
    data = ConceptData.from_folder(tmp_path, caption="a thing", resolution=8)
    assert [tuple(item.image.shape) for item in data] == [(3, 8, 16), (3, 11, 11)]
    torch.testing.assert_close(data[0].image.mean((1, 2)), read_image(tmp_path / "b.png").mean((1, 2)))


# --- tensors ---


def test_tensors_with_one_caption_one_each_or_several_each():
    images = torch.zeros(2, 3, 4, 4)
    assert [item.captions for item in ConceptData.from_tensors(images, "a thing")] == [["a thing"], ["a thing"]]
    assert [item.captions for item in ConceptData.from_tensors(images, ["one", "two"])] == [["one"], ["two"]]
    several = ConceptData.from_tensors([torch.zeros(3, 2, 5), torch.zeros(3, 4, 4).bfloat16()], [["one", "uno"], ["two"]])
    assert several[0].captions == ["one", "uno"]
    assert several[1].image.dtype == torch.float32


GOOD = torch.zeros(3, 4, 4)


@pytest.mark.parametrize("images, captions, words", [
    ([], [], "no training image"),
    ([GOOD, GOOD], ["one"], "2 images but 1 captions"),
    ([GOOD, GOOD], ["one", " "], "image 1"),
    ([GOOD], [[]], "image 0"),
    ([GOOD, GOOD[:1]], "a thing", "image 1"),
    ([GOOD[:, :0]], "a thing", "(3, 0, 4)"),
    ([GOOD + 255], "a thing", "-1 to 1"),
    ([GOOD * float("nan")], "a thing", "-1 to 1"),
    ([GOOD.byte()], "a thing", "uint8"),
])
def test_bad_tensors_are_named(images, captions, words):
    with pytest.raises(DataError) as error:
        ConceptData.from_tensors(images, captions)
    one_sentence(error, words)


# --- hash ---


def test_the_hash_follows_the_content_and_not_the_place(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_picture(tmp_path / folder / f"{folder}.png")
    first, second = (ConceptData.from_folder(tmp_path / folder, caption="a thing") for folder in ("one", "two"))
    assert first.content_hash() == second.content_hash()
    assert len(first.content_hash()) == 64


def test_the_hash_changes_with_every_part_of_the_content():
    image = torch.zeros(3, 2, 4)
    brighter = image.clone()
    brighter[0, 0, 0] = 1e-3
    variants = [
        ([image, image], [["ab", "c"], ["d"]]),
        ([brighter, image], [["ab", "c"], ["d"]]),
        ([image, brighter], [["ab", "c"], ["d"]]),
        ([image.reshape(3, 4, 2), image], [["ab", "c"], ["d"]]),
        ([image, image], [["a", "bc"], ["d"]]),
        ([image, image], [["ab"], ["c", "d"]]),
        ([image], [["ab", "c"]]),
    ]
    assert len({ConceptData.from_tensors(*variant).content_hash() for variant in variants}) == len(variants)


# --- buckets ---


def test_pictures_go_to_the_bucket_of_the_nearest_aspect():
    data = images_of((64, 64), (30, 40), (40, 30), (100, 101), (60, 80))
    buckets = make_buckets(data, 512, 64)
    assert {bucket.size: bucket.indices for bucket in buckets} == {(448, 576): [1, 4], (512, 512): [0, 3], (576, 448): [2]}


@pytest.mark.parametrize("resolution, multiple", [(64, 4), (64, 16), (512, 64), (500, 64), (768, 8), (1024, 32), (64, 64)])
def test_every_bucket_fits_the_model_and_the_wanted_area(resolution, multiple):
    data = images_of(*[(8, 8 * aspect) for aspect in (1, 2, 3, 9)], *[(8 * aspect, 9) for aspect in (1, 2, 3, 9)])
    buckets = make_buckets(data, resolution, multiple)
    assert sorted(index for bucket in buckets for index in bucket.indices) == list(range(8))
    for bucket in buckets:
        assert all(side % multiple == 0 and side > 0 for side in bucket.size)
        assert 0.8 <= bucket.size[0] * bucket.size[1] / resolution**2 <= 1.2
        assert max(bucket.size) <= 4 * min(bucket.size)


def test_a_fine_grid_leaves_little_of_a_picture_out():
    for shape in [(90, 160), (100, 150), (100, 250)]:
        (bucket,) = make_buckets(images_of(shape), 512, 8)
        assert bucket.size[1] / bucket.size[0] == pytest.approx(shape[1] / shape[0], rel=0.04)


@pytest.mark.parametrize("resolution, multiple", [(32, 64), (0, 8)])
def test_a_resolution_below_the_models_smallest_is_refused(resolution, multiple):
    with pytest.raises(DataError) as error:
        make_buckets(images_of((8, 8)), resolution, multiple)
    one_sentence(error, str(resolution), str(multiple))


# --- resizing ---


def test_resizing_covers_the_size_and_keeps_the_centre():
    image = torch.full((3, 4, 12), -1.0)
    image[:, :, 4:8] = 1.0
    assert torch.equal(resize_crop(image, (4, 4)), torch.ones(3, 4, 4))
    torch.testing.assert_close(resize_crop(image.transpose(1, 2), (8, 8)), torch.ones(3, 8, 8))


@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (64, 48), (1, 400), (8, 16)])
def test_any_shape_becomes_the_size_within_the_range(shape):
    image = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0)).round() * 2 - 1
    result = resize_crop(image, (8, 16))
    assert result.shape == (3, 8, 16) and result.abs().max() <= 1
    assert torch.equal(result, resize_crop(image, (8, 16)))


def test_the_right_size_is_left_as_it_is_and_not_shared():
    image = torch.rand(3, 8, 8)
    result = resize_crop(image, (8, 8))
    assert torch.equal(result, image)
    assert result.data_ptr() != image.data_ptr()


def test_shrinking_averages_fine_patterns_instead_of_sampling_them():
    stripes = torch.ones(3, 32, 32)
    stripes[:, :, ::2] = -1
    assert resize_crop(stripes, (8, 8)).abs().max() < 0.1


def test_a_word_that_the_text_encoder_does_not_know_is_told_with_its_file_before_pictures_are_encoded(tmp_path, backend, monkeypatch):
    monkeypatch.setattr(type(backend), "encode_images", lambda *given: pytest.fail("pictures were encoded first"))
    for name, text in (("a", "a zorp"), ("b", "a zorp at a bacchanal")):
        Image.new("RGB", (64, 64)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(text)
    config = TrainConfig(images=tmp_path, placeholder="zorp", out=tmp_path / "a.safetensors", quiet_samples=0)
    with pytest.raises(DataError, match=r"the caption “a zorp at a bacchanal” of b\.png .*bacchanal"):
        train(config, backend, callbacks=Callbacks())
    (tmp_path / "a.txt").write_text("a zorp in a villa")
    with pytest.raises(DataError, match=r"2 captions cannot be used: .* of a\.png: .*'villa'.* of b\.png: .*'bacchanal'.*words free for a concept") as error:
        train(config, backend, callbacks=Callbacks())
    assert str(error.value).count("words free for a concept") == 1
