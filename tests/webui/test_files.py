"""Names in the web UI's folder, and what is kept of files between two pictures."""

import os

import pytest
from webui.models import write

from sparsedict.sparsedict_core.errors import TagError
from sparsedict.webui_host import files


def test_a_name_is_a_path_or_the_files_own_name_where_only_one_has_it(tmp_path):
    for name in ("zorp", "styles/ink", "styles/old/ink", "styles/old/wash"):
        write(tmp_path, name)
    assert list(files.names(tmp_path)) == ["styles/ink", "styles/old/ink", "styles/old/wash", "zorp"]
    for name in ("styles/old/wash", "wash", "styles\\old\\wash", "styles/old/wash.safetensors"):
        assert files.find(name, tmp_path) == tmp_path / "styles/old/wash.safetensors"
    with pytest.raises(TagError, match=r"several adapters named 'ink': styles/ink, styles/old/ink; write the folder too"):
        files.find("ink", tmp_path)
    with pytest.raises(TagError, match=r"near names are zorp\b"):
        files.find("zopr", tmp_path)


@pytest.mark.parametrize("name", ["", "..", "../zorp", "styles/../zorp", "styles", "/etc/passwd", "zorp.safetensors.safetensors", "\0", "ZORP/"])
def test_a_name_that_is_none_is_refused(tmp_path, name):
    write(tmp_path / "models", "zorp")
    write(tmp_path / "models", "styles/ink")
    write(tmp_path, "zorp")
    with pytest.raises(TagError, match="there is no adapter"):
        files.find(name, tmp_path / "models")


def test_near_names_are_near(tmp_path):
    for name in ("aaa", "bbb", "ccc", "zorp", "animals/Cat"):
        write(tmp_path, name)
    for wrong, near in (("ZORP", "zorp"), ("ZROP", "zorp"), ("cat", "animals/Cat")):
        with pytest.raises(TagError, match=f"near names are {near}"):
            files.find(wrong, tmp_path)
    with pytest.raises(TagError, match=r"\(there is aaa, animals/Cat, bbb\)"):
        files.find("1234567", tmp_path)


def test_a_name_that_no_tag_can_hold_is_left_out_and_said_once(tmp_path, capsys):
    write(tmp_path, "zorp")
    for name in (b"a:b", b"n\xff", b"two\nlines", b"<i>"):
        os.link(tmp_path / "zorp.safetensors", os.fsencode(tmp_path) + b"/" + name + b".safetensors")
    assert list(files.names(tmp_path)) == list(files.names(tmp_path)) == ["zorp"]
    assert capsys.readouterr().out.count("is left out") == 4


def test_links_to_folders_are_followed_once_and_endings_may_be_large(tmp_path):
    write(tmp_path / "elsewhere", "ink")
    (tmp_path / "models").mkdir()
    (tmp_path / "models/styles").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/again").symlink_to(tmp_path / "models")
    (tmp_path / "elsewhere/ink.safetensors").rename(tmp_path / "elsewhere/INK.SAFETENSORS")
    assert list(files.names(tmp_path / "models")) == ["styles/INK"]


def test_an_empty_folder_says_so(tmp_path):
    with pytest.raises(TagError, match="the folder is empty"):
        files.find("zorp", tmp_path)


def test_a_file_is_read_and_hashed_once_until_it_changes(tmp_path):
    path = write(tmp_path)
    first, digest = files.read(path), files.short_hash(path)
    assert files.read(path) is first and len(digest) == 12
    path.write_bytes(write(tmp_path, "other", family="sdxl").read_bytes())
    assert files.read(path) is not first and files.short_hash(path) != digest
    for number in range(files.KEPT):
        files.read(write(tmp_path, f"more/{number}"))
    assert len(files._read) <= files.KEPT


def test_the_folder_is_the_options_or_lies_beside_the_hosts_models(host, tmp_path):
    assert files.default_folder() == tmp_path
    host.cmd_opts.sparsedict_dir = None
    assert files.default_folder() == tmp_path / "SparseDict" and files.default_folder().is_dir()
