"""What a picture's numbers mean: colour profiles, cameras' Adobe RGB, inks, transparency, and formats that need a plug-in."""

from __future__ import annotations

import subprocess
import sys

import colour_profiles as icc
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, features

from sparsedict.sparsedict_core.errors import DataError
from sparsedict.trainer.colour import CONVERTED
from sparsedict.trainer.images import read_image, read_picture

COLOUR = (120, 160, 80)


def shown(path) -> list[int]:
    """The first pixel, 0 to 255."""
    return ((read_image(path)[:, 0, 0] + 1) * 127.5).round().int().tolist()


@pytest.mark.parametrize("primaries, gamma, expected", [(icc.ADOBE, 563 / 256, [99, 161, 73]), (icc.PROPHOTO, 1.8, [115, 183, 78])], ids=["adobe", "prophoto"])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_profile_s_colours_become_srgb(tmp_path, primaries, gamma, expected, ending):
    Image.new("RGB", (4, 4), COLOUR).save(tmp_path / f"a.{ending}", icc_profile=icc.rgb_profile(primaries, gamma))
    assert shown(tmp_path / f"a.{ending}") == pytest.approx(expected, abs=1)


def test_srgb_with_its_profile_is_bit_equal_to_srgb_without(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    Image.fromarray(pixels).save(tmp_path / "named.png", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    assert torch.equal(read_image(tmp_path / "named.png"), read_image(tmp_path / "plain.png"))


def test_a_grey_profile_s_brightness_is_followed(tmp_path):
    dark = icc.grey_profile(1.0)
    Image.new("L", (4, 4), 128).save(tmp_path / "a.png", icc_profile=dark)
    assert shown(tmp_path / "a.png") == pytest.approx([188] * 3, abs=1)  # half the light


def test_a_camera_that_says_adobe_rgb_without_a_profile(tmp_path):
    for name, tags in [("colour space", {0xA001: 2}), ("interoperability", {0xA001: 65535, 0xA005: {1: "R03"}})]:
        exif = Image.Exif()
        exif[0x8769] = tags
        Image.new("RGB", (16, 16), COLOUR).save(tmp_path / f"{name}.jpg", exif=exif, quality=100, subsampling=0)
        assert shown(tmp_path / f"{name}.jpg") == pytest.approx([99, 161, 73], abs=2)


def test_inks_by_their_profile_and_a_note_without_one(tmp_path):
    profile = icc.cmyk_profile(lambda c, m, y, k: (100 - 40 * m - 60 * k, 40 * m, 0))
    Image.new("CMYK", (4, 4), (0, 255, 0, 0)).save(tmp_path / "with.tif", icc_profile=profile)
    Image.new("CMYK", (4, 4), (0, 255, 0, 0)).save(tmp_path / "without.tif")
    assert shown(tmp_path / "with.tif") == pytest.approx([209, 121, 147], abs=8)  # L 60, a 40: no screen's magenta
    assert shown(tmp_path / "without.tif") == [255, 0, 255]
    assert read_picture(tmp_path / "with.tif").notes == [CONVERTED] and "guess" in read_picture(tmp_path / "without.tif").notes[0]


def test_a_damaged_profile_is_told_and_the_picture_is_read(tmp_path):
    Image.new("RGB", (4, 4), COLOUR).save(tmp_path / "a.png", icc_profile=b"no profile" * 20)
    assert shown(tmp_path / "a.png") == list(COLOUR)
    assert "taken as sRGB" in read_picture(tmp_path / "a.png").notes[0]


def test_transparency_is_kept_beside_the_picture_on_white(tmp_path):
    picture = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    picture.putpixel((1, 0), (0, 0, 0, 51))
    picture.save(tmp_path / "a.png", icc_profile=icc.rgb_profile(icc.ADOBE, 563 / 256))
    read = read_picture(tmp_path / "a.png")
    torch.testing.assert_close(read.alpha, torch.tensor([[[1.0, 0.2]]]))
    torch.testing.assert_close(read.image[0], torch.tensor([[-1.0, 0.6]]))


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read(tmp_path):
    Image.new("RGB", (16, 16), COLOUR).save(tmp_path / "a.avif", quality=100)
    assert shown(tmp_path / "a.avif") == pytest.approx(COLOUR, abs=3)


def test_heic_without_its_plug_in_says_which_package_reads_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64)
    with pytest.raises(DataError, match="pip install pillow-heif"):
        read_image(tmp_path / "a.heic")


@pytest.mark.parametrize("ending, options", [("jpg", {}), ("png", {}), ("png", {"mode": "P"}), ("png", {"mode": "RGBA"}), ("png", {"mode": "I;16"})])
def test_a_large_picture_shrinks_while_it_is_decoded_and_stays_upright(tmp_path, ending, options):
    left_is_light = np.zeros((90, 120), dtype=np.uint8)
    left_is_light[:, :60] = 250
    picture = Image.fromarray(left_is_light)
    picture = Image.fromarray(left_is_light.astype(np.uint16) * 257) if options.get("mode") == "I;16" else picture.convert(options.get("mode", "RGB"))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise: left comes to the top
    picture.save(tmp_path / f"a.{ending}", exif=exif)
    read = read_picture(tmp_path / f"a.{ending}", area=1200)
    assert read.image.shape == (3, 40, 30) and read.size == (120, 90)
    assert read.image[:, :15].min() > 0.8 and read.image[:, 25:].max() < -0.8


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is counted in other units, or not at all")
def test_six_photos_of_twelve_million_pixels_fit_in_little_memory(tmp_path):
    """309 MB of pixels were held and made at once. In a process of its own, as the peak is the process's."""
    Image.effect_noise((400, 300), 60).resize((4000, 3000)).convert("RGB").save(tmp_path / "0.jpg", quality=60)
    for number in range(1, 6):
        (tmp_path / f"{number}.jpg").write_bytes((tmp_path / "0.jpg").read_bytes())
    program = (
        "import resource, sys\nfrom sparsedict.trainer.data import ConceptData\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nbefore = peak()\n"
        "ConceptData.from_folder(sys.argv[1], caption='x', resolution=64)\nprint(peak() - before)"
    )
    grown = int(subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True).stdout)
    assert grown / 1024 < 60
