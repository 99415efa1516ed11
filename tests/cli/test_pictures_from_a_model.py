"""generate, sweep and probe, on a backend that takes milliseconds: what is written, with which atoms at work."""

import json

import pytest
import torch
from fake_backend import FakeBackend
from PIL import Image
from toy_adapters import toy_adapter

from sparsedict.sparsedict_core import save


@pytest.fixture(autouse=True)
def backend(monkeypatch):
    made = FakeBackend()
    for command in ("generate", "sweep", "probe"):
        monkeypatch.setattr(f"sparsedict.cli.{command}.open_model", lambda *_: made)
    yield made
    assert not any(module._forward_hooks for module in made.denoiser.modules()), "an adapter was left on the model"


@pytest.fixture
def picture(cli, tmp_path):
    """Bytes of the picture that `generate` makes with these options."""

    def make(*options):
        out = tmp_path / "picture.png"
        result = cli("generate", "a zorp", *options, "--overwrite", "--out", out)
        assert result.code == 0, result.err
        with Image.open(out) as image:
            return image.convert("RGB").tobytes()

    return make


def test_the_same_seed_gives_the_same_picture_and_another_another(picture):
    assert picture("--seed", 3) == picture("--seed", 3) != picture("--seed", 4)


def test_strength_and_atoms_act(picture, adapter_file):
    base, full = picture(), picture("-a", adapter_file)
    assert base != full
    assert picture("-a", f"{adapter_file}:0") == base
    assert picture("-a", adapter_file, "--top", "0") == base
    assert picture("-a", adapter_file, "--keep", "100%") == full
    assert picture("-a", adapter_file, "--gain", "L0-L2=0") == base
    few = picture("-a", adapter_file, "--keep", "10%")
    assert few not in (base, full)


def test_a_gain_is_the_same_as_a_selection(picture, adapter_file):
    assert picture("-a", adapter_file, "--gain", "L0-L1=0,L2[0-7]=0") == picture("-a", adapter_file, "--atoms", "L2[8-15]")


def test_several_pictures_are_a_grid_or_a_folder(cli, tmp_path, adapter_file):
    grid, folder = tmp_path / "grid.png", tmp_path / "pictures"
    assert cli("generate", "a", "b", "-a", adapter_file, "--count", 2, "--compare", "--out", grid).code == 0
    with Image.open(grid) as image:
        assert image.width == 4 * 128 + 3 * 6 and image.info["sparsedict.prompt"] == "a | b"
    assert cli("generate", "a", "--count", 3, "--size", "32x16", "--out", folder).code == 0
    assert sorted(path.name for path in folder.iterdir()) == ["000.png", "001.png", "002.png"]
    assert Image.open(folder / "000.png").size == (32, 16)


def test_compare_shows_the_base_first(cli, tmp_path, adapter_file, picture):
    folder = tmp_path / "pictures"
    assert cli("generate", "a zorp", "-a", adapter_file, "--compare", "--out", folder).code == 0
    assert Image.open(folder / "000.png").tobytes() == picture()
    assert Image.open(folder / "001.png").tobytes() == picture("-a", adapter_file)


def test_sweep_goes_from_the_base_to_the_full_concept(cli, tmp_path, adapter_file):
    out = tmp_path / "slider.png"
    result = cli("sweep", adapter_file, "a zorp", "--shares", "0,25%,100%", "--out", out)
    assert result.code == 0, result.err
    assert "25.0%: 12 of 48 atoms" in result.err
    with Image.open(out) as image:
        assert image.width == 3 * 160 + 2 * 6
    with Image.open(out.with_suffix(".gif")) as animation:
        assert animation.n_frames == 3


def test_sweep_without_shares_adds_equal_parts_of_the_importance(cli, tmp_path, adapter_file):
    result = cli("sweep", adapter_file, "a zorp", "--parts", 4, "--no-gif", "--out", tmp_path / "slider.png")
    assert result.code == 0, result.err
    kept = [int(line.split(": ")[1].split(" of")[0]) for line in result.err.splitlines() if "of the importance" in line]
    assert len(kept) == 5 and kept[0] == 0 and kept[-1] == 48 and kept == sorted(set(kept))


def test_probe_lists_the_atoms_and_says_where(cli, tmp_path, adapter_file, backend):
    out = tmp_path / "where.png"
    result = cli("probe", adapter_file, "a zorp", "--top", 5, "--json", "--out", out)
    assert result.code == 0, result.err
    atoms = json.loads(result.out)["atoms"]
    assert len(atoms) == 5 and [atom["norm"] for atom in atoms] == sorted((atom["norm"] for atom in atoms), reverse=True)
    assert all(len(atom["map"]) == 8 and len(atom["map"][0]) == 8 for atom in atoms)
    assert all(0 < atom["fires"] <= 1 and atom["relative"] > 0 for atom in atoms)
    assert Image.open(out).width == 6 * 160 + 5 * 6
    assert "norm added" in cli("probe", adapter_file, "a zorp", "--overwrite", "--out", out).out


@pytest.mark.parametrize("tokens, latents, shape", [(64, (16, 16), (8, 8)), (64 + 7, (16, 16), (8, 8)), (12, (8, 6), (4, 3)), (4, (3, 3), (2, 2))])
def test_tokens_find_their_place_on_the_grid(tokens, latents, shape):
    from sparsedict.sparsedict_core.token_grid import on_grid

    grid = on_grid(torch.arange(tokens).float(), latents)
    assert grid.shape == shape and grid[-1, -1] == tokens - 1


def test_a_base_of_one_size_says_so():
    from sparsedict.cli.common import UserError, parse_size
    from sparsedict.trainer.backends import open_backend

    demo = open_backend("demo")
    assert parse_size("96", demo) == parse_size(None, demo) == (96, 96)
    for text in ("72", "48", "100008x96"):
        with pytest.raises(UserError, match="knows pictures of 96×96 only"):
            parse_size(text, demo)


@pytest.mark.parametrize(
    "options, part",
    [
        (["--size", "33"], "multiples of 4"),
        (["--size", "big"], "write 512 or 512x768"),
        (["--seed", "9" * 20], "at most 18 digits"),
        (["--gain", "L0"], "write addresses and a number"),
        (["--keep", "0.5"], "need an adapter"),
        (["--gain", "L9=0", "-a", "{adapter}"], "no layer L9"),
        (["-a", "{adapter}", "--keep", "0"], "above 0"),
        (["-a", "{adapter}:very"], "is no strength"),
        (["-a", "{adapter}.nothing"], "does not exist"),
        (["-a", "{other}"], "was made for sdxl"),
        (["-a", "{wide}"], "24"),
    ],
)
def test_bad_input(refused, adapter_file, tmp_path, options, part):
    save(toy_adapter(family="sdxl"), tmp_path / "other.safetensors")
    save(toy_adapter(width=32), tmp_path / "wide.safetensors")
    places = {"adapter": adapter_file, "other": tmp_path / "other.safetensors", "wide": tmp_path / "wide.safetensors"}
    assert part in refused("generate", "a", *[option.format(**places) for option in options], "--out", tmp_path / "picture.png")


def test_sweep_refuses_nonsense_shares_and_an_animation_that_exists(refused, adapter_file, tmp_path):
    out = tmp_path / "slider.png"
    assert "from 0 to 100%" in refused("sweep", adapter_file, "a", "--shares", "0,200%", "--out", out)
    out.with_suffix(".gif").touch()
    assert "exists" in refused("sweep", adapter_file, "a", "--out", out)
