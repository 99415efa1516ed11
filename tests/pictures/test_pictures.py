"""Pictures hold what they should: sizes, labels, frames, and the colour of what is strong, missing or faded."""

import pytest
import torch
from PIL import Image
from toy_adapters import toy_adapter

from sparsedict import pictures
from sparsedict.pictures.charts import importance_thumbnail
from sparsedict.sparsedict_core.errors import FileFormatError
from sparsedict.sparsedict_core.selection import Selection, select


def plain(colour, side=32):
    return Image.new("RGB", (side, side), colour)


def test_a_decoded_tensor_becomes_an_image():
    tensor = torch.stack([torch.full((8, 8), -1.0), torch.zeros(8, 8), torch.full((8, 8), 3.0)])
    assert pictures.to_image(tensor).getpixel((3, 3)) == (0, 128, 255)
    assert len(pictures.to_images(torch.zeros(4, 3, 8, 8))) == 4


def test_a_strip_has_a_cell_and_a_label_for_each_image():
    images = [plain("red"), plain("blue"), plain("green")]
    row = pictures.image_strip(images, ["0 %", "50 %\n320 atoms", "100 %"])
    assert row.width == 3 * 128 + 2 * 6 and row.height > 128
    assert row.getpixel((10, 10)) == (255, 0, 0) and row.getpixel((128 + 6 + 10, 10)) == (0, 0, 255)
    grid = pictures.image_strip(images, columns=2)
    assert grid.size == (2 * 128 + 6, 2 * 128 + 6)


def test_a_strip_that_cannot_be_made():
    with pytest.raises(ValueError, match="at least one"):
        pictures.image_strip([])
    with pytest.raises(ValueError, match="1 images but 2 labels"):
        pictures.image_strip([plain("red")], ["a", "b"])


def test_a_gif_has_every_frame_and_ends_slowly(tmp_path):
    path = pictures.gif([plain("red"), plain("blue"), plain("green")], tmp_path / "a.gif", ["a", "b", "c"])
    with Image.open(path) as image:
        assert image.n_frames == 3 and image.info["loop"] == 0
        image.seek(2)
        assert image.info["duration"] == 1500
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_picture(tmp_path, monkeypatch):
    path = pictures.save_image(plain("red"), tmp_path / "a.png")
    before = path.read_bytes()

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(FileFormatError, match=r"a\.png"):
        pictures.save_image(plain("blue"), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_coefficient_map_lights_up_where_the_atom_acts():
    where = torch.zeros(4, 4)
    where[0, 0] = 2.0
    image = pictures.coefficient_map(plain("white"), [where, torch.zeros(4, 4)], ["L1[3]", "L1[4]"])
    assert image.width == 3 * 160 + 2 * 6
    lit, dark = image.getpixel((160 + 6 + 8, 8)), image.getpixel((160 + 6 + 150, 150))
    assert lit[0] > 200 and lit[2] < 90 and max(dark) - min(dark) < 4 and dark[0] < 130
    assert image.getpixel((2 * 166 + 8, 8)) == dark
    with pytest.raises(ValueError, match="2 maps but 1 labels"):
        pictures.coefficient_map(plain("white"), [where, where], ["a"])


def test_charts_are_drawn_also_of_adapters_without_importance_and_with_lost_atoms():
    adapter = toy_adapter()
    adapter.sites["blocks.1"].keep(torch.zeros(16, dtype=torch.bool))
    selected = select(adapter, Selection(keep=0.25))
    assert pictures.importance_map(adapter, selected).size != (0, 0)
    assert pictures.cumulative_curve(adapter, extra={"greedy": [(0.1, 0.6), (1, 1)]}).mode == "RGB"
    for site in adapter.sites.values():
        site.importance.zero_()
    pictures.importance_map(adapter)
    pictures.cumulative_curve(adapter)


def test_a_cards_thumbnail_is_the_map_alone():
    adapter = toy_adapter()
    for site in adapter.sites.values():
        site.importance.zero_()
    first, *_, last = adapter.sites.values()
    first.importance[0] = 1.0
    last.atom_ids[-1] += 1  # one is lost before it
    image = importance_thumbnail(adapter)
    assert image.size == (256, 384)
    strongest, weakest, lost = image.getpixel((0, 0)), image.getpixel((0, 383)), image.getpixel((255, 0))
    assert strongest == (253, 231, 36) and weakest == (68, 1, 84) and lost == (228, 228, 228)


def test_in_a_node_charts_are_dark_and_as_wide_as_the_node():
    adapter = toy_adapter()
    log = [{"step": step, "loss": 1 / step, "density": 0.1, "target_density": 0.12} for step in range(1, 9)]
    for picture in (pictures.importance_map(adapter, for_node=True), pictures.cumulative_curve(adapter, for_node=True), pictures.training_curves(log, for_node=True)):
        darkest, lightest = picture.convert("L").getextrema()
        assert picture.width <= 560 and picture.getpixel((0, 0)) == (0x1E, 0x1E, 0x1E) and darkest < 40 and lightest > 200


def test_training_curves_need_only_step_and_loss():
    log = [{"step": step, "loss": 1 / (step + 1)} for step in range(20)]
    pictures.training_curves(log)
    pictures.training_curves([{**row, "quiet_ratio": 0.2, "density": 0.3, "target_density": 0.2} for row in log])
