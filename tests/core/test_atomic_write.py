"""Files appear whole or not at all, and a write that is killed leaves nothing for ever."""

import subprocess
import sys

import pytest

from sparsedict.sparsedict_core import atomic_write
from sparsedict.sparsedict_core.atomic_write import UNFINISHED, write_atomically
from sparsedict.sparsedict_core.errors import FileFormatError

WRITER = """
import os, sys, time
from pathlib import Path
from sparsedict.sparsedict_core import atomic_write
def wait(number):
    print("writing", flush=True)
    time.sleep(60)
atomic_write.os.fsync = wait
atomic_write.write_atomically(Path(sys.argv[1]), b"x" * 1000)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that is within a write."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "a.bin")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.communicate()


def unfinished(folder):
    return list(folder.glob(f".*{UNFINISHED}"))


def test_what_a_killed_write_left_goes_with_the_next_one(tmp_path, writer):
    writer.kill()
    writer.wait()
    assert len(unfinished(tmp_path)) == 1 and not (tmp_path / "a.bin").exists()
    write_atomically(tmp_path / "b.bin", b"1")
    assert not unfinished(tmp_path) and [path.name for path in tmp_path.iterdir()] == ["b.bin"]


@pytest.mark.skipif(atomic_write.fcntl is None, reason="an open file cannot be deleted on Windows")
def test_what_is_being_written_is_left_alone(tmp_path, writer):
    write_atomically(tmp_path / "b.bin", b"1")
    assert len(unfinished(tmp_path)) == 1


def test_the_longest_name_that_a_folder_takes(tmp_path):
    path = tmp_path / ("n" * 255)
    write_atomically(path, b"1")
    assert path.read_bytes() == b"1"


def test_a_full_disk_leaves_nothing_and_says_what_helps(tmp_path, monkeypatch):
    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_write.os, "fsync", full)
    with pytest.raises(FileFormatError, match=r"a\.bin was not saved, the disk is full; free some space there, or choose another place"):
        write_atomically(tmp_path / "a.bin", b"1")
    assert not list(tmp_path.iterdir())
