"""What goes wrong at the command line: exit code 1, one line that says what, nothing left behind."""

import contextlib
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from toy_adapters import toy_adapter

from sparsedict.sparsedict_core import save


def tensors_of(path):
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def damaged(path, change):
    """The file with its tensors changed by `change(tensors)`."""
    tensors, metadata = tensors_of(path)
    change(tensors)
    save_file(tensors, path, metadata)
    return path


BROKEN = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "cut in its header": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "no safetensors": lambda path: path.write_bytes(b"hello " * 40),
    "a pickle": lambda path: path.write_bytes(pickle.dumps({"a": list(range(50))})),
    "a torch file": lambda path: torch.save({"a": torch.zeros(3)}, path),
    "a LoRA": lambda path: save_file({"lora.down.weight": torch.zeros(2, 2)}, path),
    "a missing tensor": lambda path: damaged(path, lambda tensors: tensors.pop("blocks.1.dictionary.weight")),
    "an extra tensor": lambda path: damaged(path, lambda tensors: tensors.update(extra=torch.zeros(2))),
    "NaN": lambda path: damaged(path, lambda tensors: tensors["blocks.1.encoder.weight"].fill_(float("nan"))),
    "a wrong shape": lambda path: damaged(path, lambda tensors: tensors.update({"blocks.1.encoder.bias": torch.zeros(3)})),
}


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("command", ["inspect", "prune"])
def test_broken_files(refused, adapter_file, tmp_path, what, command):
    BROKEN[what](adapter_file)
    more = ["--keep", "0.5", "--out", tmp_path / "out.safetensors"] if command == "prune" else []
    assert str(adapter_file) in refused(command, adapter_file, *more)


def test_a_missing_file_and_a_folder(refused, tmp_path):
    assert "does not exist" in refused("inspect", tmp_path / "nothing.safetensors")


@pytest.mark.parametrize(
    "options, part",
    [
        (["--atoms", "L99[0]"], "no layer L99"),
        (["--atoms", "L3[9-2]"], "backwards"),
        (["--atoms", "L3["], "L3["),
        (["--atoms", "L1[99]"], "L1[99]"),
        (["--atoms", ""], "expected a layer"),
        (["--layers", "L0[3]", "--keep", "0.5"], "names atoms"),
        (["--keep", "0"], "above 0 and at most 1"),
        (["--keep", "1.5"], "above 0 and at most 1"),
        (["--keep", "150%"], "above 0 and at most 1"),
        (["--keep", "nan"], "above 0 and at most 1"),
        (["--keep", "some"], "is no share"),
        (["--top", "-1"], "0 or more"),
        (["--keep", "0.5", "--top", "3"], "--keep and --top each say"),
        ([], "say which atoms"),
    ],
)
def test_bad_selections(refused, adapter_file, tmp_path, options, part):
    said = refused("prune", adapter_file, *options, "--out", tmp_path / "out.safetensors")
    assert part in said and "importance_share" not in said


@pytest.mark.parametrize("command", [["inspect", "FILE"], ["generate", "a zorp", "--adapter", "FILE", "--out", "OUT"]])
def test_two_ways_to_select_are_named_as_they_were_typed(refused, adapter_file, tmp_path, command):
    places = {"FILE": adapter_file, "OUT": tmp_path / "out.png"}
    said = refused(*(places.get(word, word) for word in command), "--atoms", "L0", "--threshold", "0.1")
    assert "--threshold and --atoms each say which atoms to keep; give one of them" in said


@pytest.mark.parametrize("command", ["prune", "compose", "inspect"])
def test_nothing_is_overwritten_unasked(cli, adapter_file, tmp_path, command):
    out = tmp_path / ("mine.png" if command == "inspect" else "mine.safetensors")
    out.write_text("precious")
    options = {"prune": ["--keep", "0.5", "--out", out], "compose": ["--out", out], "inspect": ["--picture", out]}[command]
    result = cli(command, adapter_file, *options)
    assert result.code == 1 and "exists" in result.err and out.read_text() == "precious"
    assert cli(command, adapter_file, *options, "--overwrite").code == 0
    assert out.read_bytes() != b"precious"


def test_the_wrong_ending_and_a_folder_as_file(refused, adapter_file, tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    assert ".safetensors" in refused("prune", adapter_file, "--keep", "0.5", "--out", tmp_path / "out.pt")
    assert "exists" in refused("prune", adapter_file, "--keep", "0.5", "--out", tmp_path / "folder.safetensors")
    assert "is a folder" in refused("prune", adapter_file, "--keep", "0.5", "--overwrite", "--out", tmp_path / "folder.safetensors")


def test_a_folder_that_cannot_be_made(refused, adapter_file, tmp_path):
    """A file is in the way, which stops even an administrator, whom permissions do not."""
    (tmp_path / "file").touch()
    assert "cannot make the folder" in refused("prune", adapter_file, "--keep", "0.5", "--out", tmp_path / "file" / "out.safetensors")


def test_a_folder_that_is_not_writable(refused, adapter_file, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "not writable" in refused("prune", adapter_file, "--keep", "0.5", "--out", tmp_path / "out.safetensors")


@pytest.fixture
def full_disk():
    """Files of at most 1000 bytes: a write fails half-way, as on a full disk. Python ignores the signal that comes with it."""
    resource = pytest.importorskip("resource", reason="no file size limit on this system to stand in for a full disk")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    @contextlib.contextmanager
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


@pytest.mark.parametrize("command", ["prune", "picture"])
def test_a_full_disk_leaves_nothing(refused, full_disk, adapter_file, tmp_path, command):
    options = {
        "prune": ["prune", adapter_file, "--keep", "0.9", "--out", tmp_path / "out.safetensors"],
        "picture": ["inspect", adapter_file, "--picture", tmp_path / "out.png"],
    }[command]
    with full_disk():
        error = refused(*options)
    assert str(options[-1]) in error


def test_adapters_of_different_bases_are_not_merged(refused, adapter_file, tmp_path):
    other = tmp_path / "other.safetensors"
    save(toy_adapter(family="sdxl"), other)
    assert "base family" in refused("compose", adapter_file, other, "--out", tmp_path / "both.safetensors")


@pytest.mark.parametrize("spec, part", [("{}:much", "is no strength"), ("cat={}:", "is no strength"), ("cat=", "names no file")])
def test_bad_adapter_specs(refused, adapter_file, tmp_path, spec, part):
    assert part in refused("compose", spec.format(adapter_file), "--out", tmp_path / "both.safetensors")


def test_the_same_name_twice(refused, adapter_file, tmp_path):
    assert "toy" in refused("compose", adapter_file, adapter_file, "--out", Path(tmp_path) / "both.safetensors")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_numbers_that_are_none_are_refused_in_one_sentence(refused, adapter_file, tmp_path, value):
    picture, file = ("--model", "nothing/here", "--out", tmp_path / "a.png"), ("--out", tmp_path / "a.safetensors")
    for arguments in (
        ("generate", "a zorp", "-a", f"{adapter_file}:{value}", *picture),
        ("generate", "a zorp", "-a", adapter_file, "--gain", f"L0={value}", *picture),
        ("generate", "a zorp", "-a", adapter_file, "--guidance", value, *picture),
        ("sweep", adapter_file, "a zorp", "--strength", value, *picture),
        ("probe", adapter_file, "a zorp", "--strength", value, *picture),
        ("prune", adapter_file, "--threshold", value, *file),
        ("prune", adapter_file, "--keep", value, *file),
        ("compose", f"{adapter_file}:{value}", *file),
    ):
        assert value in (error := refused(*arguments)) or "inf" in error


def test_pruning_in_place_says_the_true_sizes(cli, adapter_file):
    before = adapter_file.stat().st_size
    told = cli("prune", adapter_file, "--keep", "0.25", "--no-moments", "--overwrite", "--out", adapter_file).out
    after = adapter_file.stat().st_size
    assert after < before and f", {after / before:.0%} of " in told


def test_a_file_with_a_space_in_its_name_is_composed_under_a_name(cli, adapter_file, tmp_path):
    names = ["my cat", "10_zorp dog", "写真", "ink.v2"]
    files = [adapter_file.with_name(f"{name}.safetensors") for name in names]
    for file in files:
        file.write_bytes(adapter_file.read_bytes())
    result = cli("compose", *files, "--out", tmp_path / "all.safetensors")
    assert result.code == 0, result.err
    assert [line.split(":")[0] for line in result.out.splitlines()[:-1]] == ["my-cat", "adapter-10_zorp-dog", "adapter", "ink.v2"]
