"""A cold reader's folder: ten messy pictures in one command, which says what it uses, how, and what it does not."""

import numpy as np
import pytest
from colour_profiles import ADOBE, rgb_profile
from PIL import Image

SHORT = ("--word", "zorp", "--steps", 1, "--batch-size", 2, "--atoms", 8, "--rank", 2)


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)

    def picture(width, height):
        return Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)).resize((width, height))

    folder = tmp_path / "photos"
    (folder / "old").mkdir(parents=True)
    picture(96, 64).save(folder / "beach.jpg")
    (folder / "beach.txt").write_text("a zorp in the center")
    picture(64, 64).save(folder / "adobe.jpg", icc_profile=rgb_profile(ADOBE, 2.2))
    picture(64, 64).convert("CMYK").save(folder / "print.jpg")
    cutout = picture(64, 64).convert("RGBA")
    cutout.putalpha(Image.new("L", (64, 64), 0))
    cutout.save(folder / "cutout.png")
    cat = picture(64, 64)
    cat.save(folder / "cat.png")
    cat.save(folder / "cat copy.png")
    (folder / "cat.caption").write_text("a zorp on the left")
    picture(24, 16).save(folder / "icon.png")
    picture(640, 96).save(folder / "panorama.webp")
    (folder / "metadata.jsonl").write_text('{"file_name": "panorama.webp", "text": "a zorp on the right"}\n{"file_name": "gone.png", "text": "a"}\n')
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    (folder / "IMG_0042.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 100)
    (folder / "holiday.txt").write_text("a caption of nothing")
    for name in ("notes.docx", "clip.mp4"):
        (folder / name).write_text("x")
    picture(64, 64).save(folder / "old" / "x.png")
    return folder


def test_it_says_what_is_used_and_what_is_not(cli, photos, tmp_path):
    config = tmp_path / "short.toml"
    config.write_text("quiet_samples = 0\n")
    result = cli("train", photos, "--config", config, *SHORT, "--skip-unreadable", "--out", tmp_path / "a.safetensors")
    assert result.code == 0, result.err
    told = result.out[: result.out.index("encoding images")]
    for line in (
        "training pictures: 8 in", "2 more left out", "captions from .txt files: beach.jpg", "captions from .caption files: cat.png",
        "captions from metadata.jsonl: panorama.webp", "captions “a zorp”, as they have none of their own: adobe.jpg", "very small, so blurred when enlarged: icon.png",
        "cropped at the sides:", "panorama.webp (640×96", "the same picture: cat copy.png, cat.png", "broken.jpg cannot be read as a picture",
        "other colours, converted to sRGB: adobe.jpg", "transparent, so it was laid on white: cutout.png", "CMYK without a profile, so its colours are a guess: print.jpg",
        "named in metadata.jsonl but not there: gone.png", "caption files without a picture: holiday.txt", "other files, not used: 1 .docx, 1 .mp4",
        "sub-folders, not read: old (1 picture)",
    ):  # fmt: skip
        assert line in told, line
    assert "IMG_0042.HEIC cannot be read as a picture" in told and "\r" not in result.err


def test_without_leave_to_skip_nothing_is_trained_and_all_that_is_wrong_is_named(refused, photos, tmp_path):
    said = refused("train", photos, *SHORT, "--out", tmp_path / "a.safetensors")
    assert "2 of 10 pictures cannot be used" in said and "broken.jpg" in said and "IMG_0042.HEIC" in said and "--skip-unreadable" in said


def test_the_base_s_own_refusal_is_told_with_what_is_wrong_in_the_folder(refused, photos, tmp_path):
    (photos / "cat.caption").write_text("a zorp in a bungalow")
    with (photos / "metadata.jsonl").open("a") as table:
        table.write("no JSON\n")
    said = refused("train", photos, *SHORT, "--out", tmp_path / "a.safetensors")
    for part in ("line 3 of", "2 of 10 pictures cannot be used", "“a zorp in a bungalow” of cat.png", "'bungalow'"):
        assert part in said, said
