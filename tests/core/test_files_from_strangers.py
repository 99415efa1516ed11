"""Whatever a file is, it is refused in one sentence or loaded, inspected, listed and drawn for a price that its size sets."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from core.adapter_files import KEY, read_raw, rewrite

from sparsedict.sparsedict_core.compose import compose
from sparsedict.sparsedict_core.errors import FileFormatError, SelectionError, SparseDictError
from sparsedict.sparsedict_core.file_container import open_container
from sparsedict.sparsedict_core.file_format import load, load_with_metadata, read_metadata, save
from sparsedict.sparsedict_core.prune import prune
from sparsedict.sparsedict_core.selection import Selection, select
from sparsedict.tools.soak import hostile
from sparsedict.tools.soak.budget import look_into, measured

POSIX = pytest.mark.skipif(os.name != "posix", reason="made of what only POSIX has")


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """What is imported and cached at first use is not the file's."""
    path = tmp_path_factory.mktemp("warm") / "a.safetensors"
    path.write_bytes(hostile.adapter_file(2))
    look_into(path)


@POSIX
@pytest.mark.parametrize("case", hostile.CASES)
def test_budget(tmp_path, warm, case):
    """20 bytes of memory for a byte of the file and 64 MB; 1 s for 10 MB and 2 s. In a child, as a process keeps what it has freed."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(hostile.CASES[case]())
    child = os.fork()
    if child == 0:
        over = "nothing was measured"
        try:
            over = measured(lambda: look_into(path)).over(path.stat().st_size)
        except BaseException as error:
            over = repr(error)
        finally:
            if over:
                print(over, file=sys.__stderr__, flush=True)
            os._exit(bool(over))
    assert os.waitpid(child, 0)[1] == 0


REFUSED = {
    "empty site of huge width": (hostile.adapter_file(1, atoms=0, d_in=1 << 28), "widths of b.0 are"),
    "rank of 4,300 digits": (hostile.CASES["a rank of 4,300 digits"](), "rank is 1000"),
    "16,000 members": (hostile.adapter_file(1, fields={"members": [{"name": f"m{i}", "strength": 1, "config": {}} for i in range(16_000)]}), "at most 256 members"),
    "a member's strength": (hostile.adapter_file(1, members=1, fields={"members": [{"name": "m0", "strength": 1e308, "config": hostile.CONFIG}]}), "it must be a number from -250 to 250"),
    "16,000 sites": (hostile.adapter_file(1, fields={"sites": [{}] * 16_000}), "more than 1,0"),
    "brackets": (hostile.CASES["28 MB of brackets in a field"](), "header of 28,000"),
    "many fields": (hostile.CASES["100,000 fields"](), "at most 512 texts"),
    "text of one field": (hostile.adapter_file(1, fields={"note": "x" * 2_100_000}, moments=("F32", [1, 1], bytes(4)), atoms=1, d_in=200_000, d_out=200_000), "2,100,000 characters"),
    "a number as a text": (hostile.with_header(b'{"__metadata__":{"format":3}}'), "field format is 3, it must be text"),
    "a name twice": (hostile.with_header(b'{"__metadata__":{"a":"b","a":"c"}}'), "a name is there twice"),
    "trailing bytes": (hostile.adapter_file(1) + b"abc", "goes on for 3 bytes after its last tensor"),
    "a gap": (hostile.with_header(b'{"a":{"dtype":"F16","shape":[1],"data_offsets":[2,4]}}', bytes(4)), "begin at byte 2, expected 0"),
    "a lie about a size": (hostile.with_header(b'{"a":{"dtype":"F16","shape":[9],"data_offsets":[0,2]}}', bytes(2)), "other than its shape says"),
    "a lie about a size of eight bits": (hostile.with_header(b'{"a":{"dtype":"F8_E4M3","shape":[],"data_offsets":[0,4]}}', bytes(4)), "other than its shape says"),
    "not UTF-8": (hostile.with_header(b'{"\xff":1}'), "cannot be read"),
    "half a character": (hostile.with_header(b'{"__metadata__":{"a":"\\ud800"}}'), "half a character"),
    "a header without end": ((1 << 62).to_bytes(8, "little") + b"{}", "truncated at 10 bytes, within its header"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_right_words(tmp_path, case):
    path = tmp_path / "a.safetensors"
    content, match = REFUSED[case]
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=match) as error:
        load(path)
    assert str(error.value).isprintable() and len(str(error.value)) < 500


@POSIX
def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    for path in (tmp_path / "pipe.safetensors", Path("/dev/zero")):
        for read in (load, read_metadata):
            with pytest.raises(FileFormatError, match="pipe, a socket or a device"):
                read(path)


@POSIX
def test_what_may_not_be_read_is_said_so(tmp_path, adapter):
    """In a child without root's rights, for which nothing is unreadable."""
    folder = tmp_path / "closed"
    folder.mkdir()
    save(adapter, folder / "a.safetensors")
    read, write = os.pipe()
    for path in tmp_path.parents:
        if path.owner() == folder.owner() and path.stat().st_mode & 0o700 == 0o700 and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    folder.chmod(0)
    try:
        child = os.fork()
        if child == 0:
            said = "nothing"
            try:
                if os.getuid() == 0:
                    os.setgid(65534)
                    os.setuid(65534)
                load(folder / "a.safetensors")
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            finally:
                os.write(write, said.encode())
                os._exit(0)
        os.waitpid(child, 0)
        said = os.read(read, 10_000).decode()
    finally:
        folder.chmod(0o755)
    assert said.startswith("FileFormatError: ") and "not yours to read" in said


@POSIX
def test_names(tmp_path, adapter):
    for name, match in (("a" * 300, "longer than the system lets"), ("a\0b", "zero byte or half a character"), ("a\ud800", "half a character")):
        for use in (load, lambda path: save(adapter, path)):
            with pytest.raises(FileFormatError, match=match):
                use(tmp_path / f"{name}.safetensors")
    odd = tmp_path / os.fsdecode(b"a\xff.safetensors")
    save(adapter, odd)
    assert load(odd).atom_count == adapter.atom_count


def test_a_file_that_is_cut_while_it_is_in_use(tmp_path, adapter, model, x):
    """Mapped, it would end the process, or turn weights into others."""
    path = tmp_path / "a.safetensors"
    save(adapter, path, torch.float32)
    loaded = load(path)
    with loaded.attach(model):
        wanted = model(x)
    path.write_bytes(b"\xff" * path.stat().st_size)
    os.truncate(path, 10)
    with loaded.attach(model):
        assert torch.equal(model(x), wanted)
    save(adapter, path, torch.float32, overwrite=True)
    with open_container(path) as file:
        os.truncate(path, path.stat().st_size - 100)
        with pytest.raises(FileFormatError, match="became shorter"):
            file.tensors()


def test_numbers_that_json_does_not_have_are_null(tmp_path, adapter):
    path = tmp_path / "a.safetensors"
    adapter.metadata["training"] = {"loss": [float("nan"), 1.0, float("inf")]}
    save(adapter, path)
    assert json.loads(read_raw(path)["training"]) == {"loss": [None, 1.0, None]}
    rewrite(path, None, lambda meta: meta.update(note="[NaN, 1e999, -Infinity, 2]"))
    metadata = load_with_metadata(path)[1]
    assert metadata["note"] == [None, None, None, 2] and json.dumps(metadata, allow_nan=False)


def test_moments_that_are_none_are_not_believed(tmp_path, adapter):
    """What passes the checks of a file may still be no moments: then nothing is told from them, in a sentence."""
    with torch.no_grad():
        for site in adapter.sites.values():
            site.moments = torch.ones(24, 24).tril(-1).neg() + torch.ones(24, 24).triu() * 1.0
            site.moments = (site.moments + site.moments.T) / 2 + torch.eye(24) * 1e-9
            site.moments[0, 1:] = site.moments[1:, 0] = -1.0
    path = tmp_path / "a.safetensors"
    save(adapter, path)
    loaded = load(path)
    for order, refit in (("importance", False), ("greedy", False), ("importance", True)):
        try:
            prune(loaded, select(loaded, Selection(keep=0.5, order=order), refit), refit)
        except SelectionError as error:
            assert "moments" in str(error)


@pytest.mark.parametrize("lineage", ["text", {"a": 1}, [1, None], [["x"]]])
def test_a_lineage_may_be_anything(tmp_path, adapter, lineage):
    adapter.metadata["lineage"] = lineage
    save(adapter, tmp_path / "a.safetensors")
    loaded = load(tmp_path / "a.safetensors")
    joined = compose([("a", prune(loaded, select(loaded, Selection(top=3))), 1.0)])
    assert joined.metadata["lineage"][-1]["operation"] == "compose"
    known = lineage if isinstance(lineage, list) else []
    assert joined.metadata["lineage"][-1]["members"][0]["lineage"][: len(known)] == known


def test_aside_tensors_of_another_kind_are_refused(tmp_path, adapter):
    path = tmp_path / "a.safetensors"
    save(adapter, path)
    rewrite(path, lambda t: t.update({"aside.x": torch.zeros(2, dtype=torch.float64)}))
    with pytest.raises(SparseDictError, match=r"aside\.x is stored as F64"):
        load(path)


def test_an_escape_in_a_name_is_shown(tmp_path, adapter):
    path = tmp_path / "a.safetensors"
    save(adapter, path)
    rewrite(path, lambda t: t.update({f"{KEY}\x1b[2J.weight": torch.zeros(2)}))
    with pytest.raises(FileFormatError, match=r"\\x1b\[2J\.weight belongs to no site") as error:
        load(path)
    assert str(error.value).isprintable()
