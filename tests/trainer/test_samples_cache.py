"""The samples' cache: one folder for all runs, with a limit; what cannot be used in it names itself and is made anew."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent))
from small_run import run, settings

from sparsedict.sparsedict_core.errors import FileFormatError
from sparsedict.trainer import quiet, samples_cache
from sparsedict.trainer.quiet import load_or_make


@pytest.fixture
def kept(tmp_path, backend):
    """Samples, and the file that they are in."""
    samples = load_or_make(settings(tmp_path), backend, (16, 16), tmp_path)
    return samples, next(iter(samples_cache.kept_in(tmp_path)))


def with_nan(path):
    tensors = load_file(str(path))
    tensors["latents"][0, 0, 0, 0] = float("nan")
    save_file(tensors, str(path))


BAD = {
    "NaN": with_nan,
    "of another size": lambda path: save_file({"latents": torch.zeros(4, 16, 8, 8)}, str(path)),
    "of no samples": lambda path: save_file({"other": torch.zeros(1)}, str(path)),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:99]),
}


@pytest.mark.parametrize("what", BAD)
def test_samples_that_cannot_be_used_name_their_file_and_are_made_anew(tmp_path, backend, kept, what):
    samples, path = kept
    BAD[what](path)
    warned = []
    again = load_or_make(settings(tmp_path), backend, (16, 16), tmp_path, warn=warned.append)
    assert torch.equal(again.latents, samples.latents) and len(warned) == 1 and str(path) in warned[0]
    assert torch.equal(load_file(str(path))["latents"], samples.latents)


def test_a_cache_that_cannot_be_written_costs_a_warning(tmp_path, backend, kept, monkeypatch):
    def full(path, data):
        raise FileFormatError(f"{path} was not saved, the disk is full.")

    monkeypatch.setattr(quiet, "write_atomically", full)
    warned = []
    again = load_or_make(settings(tmp_path), backend, (16, 16), tmp_path / "full", warn=warned.append)
    assert torch.equal(again.latents, kept[0].latents) and "could not be kept" in warned[0]


def test_the_longest_unused_goes_first(tmp_path):
    for name in "abcd":
        (tmp_path / f"quiet-{name}.safetensors").write_bytes(bytes(100))
    (tmp_path / "mine.safetensors").write_bytes(bytes(1000))
    for name, age in zip("abcd", (40, 30, 20, 10)):
        os.utime(tmp_path / f"quiet-{name}.safetensors", (1e9 - age, 1e9 - age))
    samples_cache.used(tmp_path / "quiet-a.safetensors")
    assert samples_cache.trim(tmp_path, 250) == 200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.safetensors", "quiet-a.safetensors", "quiet-d.safetensors"]


def test_runs_share_one_folder_and_leave_nothing_beside_their_adapters(tmp_path, backend, monkeypatch):
    monkeypatch.setenv("SPARSEDICT_CACHE", str(tmp_path / "cache"))
    run(tmp_path / "one", backend, steps=1, cache=None)
    monkeypatch.setattr(type(backend), "sample", lambda *a, **k: pytest.fail("sampled again"))
    run(tmp_path / "two", backend, steps=1, cache=None)
    assert len(samples_cache.kept_in(tmp_path / "cache")) == 1
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["a.checkpoints", "a.safetensors"]


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("SPARSEDICT_CACHE", "/elsewhere")
    assert samples_cache.default_folder() == Path("/elsewhere")
    monkeypatch.delenv("SPARSEDICT_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert samples_cache.default_folder() == Path("/cache/sparsedict")

    def homeless():
        raise RuntimeError

    monkeypatch.setattr(Path, "home", homeless)
    assert samples_cache.default_folder().name == "sparsedict"
