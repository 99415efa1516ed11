"""A file appears whole or not at all, and not with what it cannot hold."""

from __future__ import annotations

import errno
import os

import pytest
import torch
from core.adapter_files import KEY

from sparsedict.sparsedict_core.compose import compose
from sparsedict.sparsedict_core.errors import CompositionError, FileFormatError
from sparsedict.sparsedict_core.file_format import save


def test_existing_file_is_kept_unless_allowed(tmp_path, adapter):
    path = tmp_path / "a.safetensors"
    save(adapter, path)
    before = path.read_bytes()
    with pytest.raises(FileFormatError, match="exists already"):
        save(adapter, path, torch.float32)
    assert path.read_bytes() == before
    save(adapter, path, torch.float32, overwrite=True)
    assert path.read_bytes() != before


def test_values_that_do_not_fit(tmp_path, adapter):
    with torch.no_grad():
        adapter.sites[KEY].encoder_bias[0] = 1e6
    with pytest.raises(FileFormatError, match=r"encoder\.bias has values too large"):
        save(adapter, tmp_path / "a.safetensors")
    save(adapter, tmp_path / "a.safetensors", torch.bfloat16)
    with torch.no_grad():
        adapter.sites[KEY].encoder_bias[0] = float("inf")
    with pytest.raises(FileFormatError, match="not finite"):
        save(adapter, tmp_path / "b.safetensors", torch.float32)
    assert os.listdir(tmp_path) == ["a.safetensors"]
    with torch.no_grad():
        adapter.sites[KEY].encoder_bias[0] = 0
        adapter.sites[KEY].encoder_scale[0] = 0
    with pytest.raises(FileFormatError, match=r"encoder\.scale has values of 0 or less"):
        save(adapter, tmp_path / "b.safetensors")
    with pytest.raises(FileFormatError, match="int32"):
        save(adapter, tmp_path / "c.safetensors", torch.int32)
    with pytest.raises(FileFormatError, match=r"\.safetensors"):
        save(adapter, tmp_path / "c.pt")


def test_importance_is_bounded(tmp_path, adapter):
    """Sums over many atoms must be numbers that JSON has."""
    path = tmp_path / "a.safetensors"
    next(iter(adapter.sites.values())).importance.fill_(3e38)
    with pytest.raises(FileFormatError, match=r"values below 0 or above 1e\+30"):
        save(adapter, path)


@pytest.mark.parametrize("number, match", [(errno.ENOSPC, "disk is full"), (errno.EACCES, "not writable"), (errno.EIO, "another place")])
def test_a_failing_disk_leaves_the_old_file_and_no_other(tmp_path, adapter, monkeypatch, number, match):
    path = tmp_path / "a.safetensors"
    save(adapter, path)
    before = path.read_bytes()

    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(FileFormatError, match=match):
        save(adapter, path, torch.float32, overwrite=True)
    assert os.listdir(tmp_path) == ["a.safetensors"] and path.read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="Windows knows no umask")
def test_a_file_gets_the_rights_of_any_new_file(tmp_path, adapter, monkeypatch):
    before = os.umask(0o027)
    try:
        monkeypatch.setattr("os.umask", lambda mask: pytest.fail("the mask belongs to the whole process"))
        save(adapter, tmp_path / "a.safetensors")
        save(adapter, tmp_path / "a.safetensors", overwrite=True)
    finally:
        monkeypatch.undo()
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o640


def test_a_folder_that_is_a_file(tmp_path, adapter):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileFormatError, match="not saved"):
        save(adapter, tmp_path / "file" / "a.safetensors")


def test_a_member_s_name_has_a_length(adapter):
    with pytest.raises(CompositionError, match="is too long a name for a member"):
        compose([("a" * 5000, adapter, 1.0), ("b", adapter, 1.0)])
