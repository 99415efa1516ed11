"""Load Image Set: what it lists, what it reads, and what it says about a set that it cannot use."""

from __future__ import annotations

import pytest
import torch
from node_calls import fingerprint
from PIL import Image


@pytest.fixture
def node(comfy):
    from sparsedict.nodes.load_image_set import LoadImageSet

    return LoadImageSet


@pytest.fixture
def folder(comfy, tmp_path, monkeypatch):
    """input/mine with two pictures of different sizes, one of them captioned."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path))
    mine = tmp_path / "deep" / "mine"
    mine.mkdir(parents=True)
    Image.new("RGB", (40, 30), (255, 0, 0)).save(mine / "a.png")
    Image.new("RGB", (20, 50), (0, 0, 255)).save(mine / "b.jpg")
    (mine / "a.txt").write_text("a {word} here\na {word} there\n")
    return mine


def test_it_lists_folders_and_the_demos_sets(node, folder):
    from sparsedict.nodes.load_image_set import choices

    assert choices() == ["deep", "deep/mine", "demo: blick-edit", "demo: fendo", "demo: quax", "demo: zorp"]


def test_pictures_captions_and_names_stay_in_step(node, folder):
    images, captions, names, masks = node.execute("deep/mine", "", "zorp").args
    assert [tuple(image.shape) for image in images] == [(1, 30, 40, 3), (1, 50, 20, 3)]
    assert torch.equal(images[0][0, 0, 0], torch.tensor([1.0, 0.0, 0.0]))
    assert captions == ["a zorp here\na zorp there", "a photo of zorp"] and names == ["a.png", "b.jpg"]
    assert [tuple(mask.shape) for mask in masks] == [(1, 30, 40), (1, 50, 20)] and all(bool((mask == 1).all()) for mask in masks)


def test_the_demos_set_is_ready_for_the_demo_model(node):
    from sparsedict.demo_model.vocabulary import tokenize

    images, captions, _, _ = node.execute("demo: zorp", "", "").args
    assert len(images) == len(captions) == 5 and all(image.shape == (1, 96, 96, 3) for image in images)
    assert all(tokenize(caption) for caption in captions)


@pytest.mark.parametrize("name", ["gone", "demo: gone", "../outside", "/etc"])
def test_a_set_that_is_not_there_is_said_before_running(node, folder, name):
    assert "is no folder in ComfyUI's input folder" in node.validate_inputs(folder=name)


def test_a_folder_named_on_windows_is_found_here(node, folder):
    assert node.validate_inputs(folder="deep\\mine") is True
    assert node.execute("deep\\mine", "", "zorp").args[2] == ["a.png", "b.jpg"]
    assert "is no folder" in node.validate_inputs(folder="..\\..")


def test_a_folder_without_pictures_is_said_before_running(node, folder):
    assert "holds no picture" in node.validate_inputs(folder="deep")
    assert node.validate_inputs(folder="deep/mine") is True
    assert node.validate_inputs(folder=None) is True


def test_a_bad_picture_is_named(node, folder):
    from sparsedict.sparsedict_core.errors import DataError

    (folder / "c.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"c\.png cannot be read as a picture"):
        node.execute("deep/mine", "a {word}", "zorp")


def test_a_changed_file_changes_the_fingerprint_and_nothing_else_does(node, folder):
    first = node.fingerprint_inputs(folder="deep/mine", caption="", word="zorp")
    assert first == node.fingerprint_inputs(folder="deep/mine", caption="", word="zorp")
    (folder / "a.txt").write_text("another caption")
    assert first != node.fingerprint_inputs(folder="deep/mine", caption="", word="zorp")
    assert node.fingerprint_inputs(folder="gone", caption="", word="")


def test_a_name_over_a_link_does_not_run_everything_again(node, folder):
    for folder_name in (["9", 0], "deep/mine"):
        first, second = (fingerprint(node, folder=folder_name, caption=["9", 1], word="zorp") for _ in range(2))
        assert first == second
    assert fingerprint(node, folder=["9", 0], caption="", word="zorp") != fingerprint(node, folder=["9", 0], caption="", word="fendo")


def test_a_link_that_leads_nowhere_changes_the_fingerprint_once_it_leads_somewhere(node, folder, tmp_path):
    (folder / "c.txt").symlink_to(tmp_path / "elsewhere.txt")
    first, second = (fingerprint(node, folder="deep/mine", caption="", word="") for _ in range(2))
    assert first == second
    (tmp_path / "elsewhere.txt").write_text("a caption")
    assert fingerprint(node, folder="deep/mine", caption="", word="") != first


def test_masks_and_pictures_that_cannot_be_read(node, folder):
    half = Image.new("L", (40, 30), 0)
    half.paste(255, (0, 0, 20, 30))
    half.save(folder / "a-masklabel.png")
    (folder / "c.png").write_bytes(b"no picture")
    from sparsedict.sparsedict_core.errors import DataError

    with pytest.raises(DataError, match=r"c\.png"):
        node.execute("deep/mine", "", "zorp")
    _, _, names, masks = node.execute("deep/mine", "", "zorp", skip_unreadable=True).args
    assert names == ["a.png", "b.jpg"] and masks[0].mean() == pytest.approx(0.5, abs=0.02) and bool((masks[1] == 1).all())
    _, _, _, masks = node.execute("deep/mine", "", "zorp", masks="off", skip_unreadable=True).args
    assert all(bool((mask == 1).all()) for mask in masks)
