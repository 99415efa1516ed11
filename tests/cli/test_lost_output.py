"""What is printed may get lost: files are made all the same, and nothing is a trace."""

import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file

FULL = "/dev/full"
pytestmark = pytest.mark.skipif(not os.path.exists(FULL), reason="needs /dev/full and a POSIX shell")


def shell(line, *arguments, **environment):
    """`sparsedict` is $0 $1 $2 in the line, the rest is "$@"."""
    program = f'sparsedict() {{ "{sys.executable}" -m sparsedict "$@"; }}\n'
    variables = {**os.environ, "PYTHONIOENCODING": "", **environment}
    done = subprocess.run(["bash", "-c", program + line, "bash", *map(str, arguments)], capture_output=True, cwd="/", env=variables, timeout=300)
    return done.returncode, done.stdout, done.stderr


def test_a_command_that_makes_a_file_makes_it_and_is_content(adapter_file, tmp_path):
    for number, lost in enumerate([">/dev/full 2>&1", ">&- 2>&-", "2>&1 | true; exit ${PIPESTATUS[0]}"]):
        out = tmp_path / f"{number}.safetensors"
        assert shell(f'sparsedict prune "$1" --keep 0.5 --out "$2" {lost}', adapter_file, out) == (0, b"", b"")
        assert load_file(str(out))


def test_a_command_whose_output_is_all_there_is_says_that_it_is_lost(adapter_file):
    code, _, told = shell('sparsedict inspect "$1" >/dev/full', adapter_file)
    assert code == 1 and told == b"Error: the output could not be written: No space left on device\n"
    code, first, told = shell('sparsedict inspect "$1" | head -1; exit ${PIPESTATUS[0]}', adapter_file)
    assert code == 0 and first.count(b"\n") == 1 and told == b""


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_characters_that_the_encoding_lacks_are_replaced(adapter_file, encoding):
    code, printed, told = shell('sparsedict inspect "$1"', adapter_file, PYTHONIOENCODING=encoding)
    # click itself writes UTF-8 where the encoding is ASCII.
    assert (code, told) == (0, b"") and ("?" if encoding == "cp1252" else "─").encode() in printed


def test_a_name_in_no_encoding_at_all_is_told():
    name = os.fsdecode(b"/\xff.safetensors")
    code, _, told = shell('sparsedict inspect "$1"', name, PYTHONIOENCODING="utf-8")
    assert code == 1 and told.startswith(b"Error: ") and told.count(b"\n") == 1


def test_a_training_goes_on_without_its_terminal(tmp_path):
    """The log's reader is gone, as with `| tee log`, and the disk of the other stream is full."""
    from PIL import Image

    (tmp_path / "photos").mkdir()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(tmp_path / "photos" / "1.png")
    (tmp_path / "photos" / "1.txt").write_text("a large flat fox")
    train = 'sparsedict train "$1" --steps 2 --batch-size 2 --atoms 8 --rank 2 --quiet-samples 0 --out "$2"'
    line = f"{{ {train} 2>&1 1>/dev/full; echo $? >\"$3\"; }} | true"
    shell(line, tmp_path / "photos", tmp_path / "a.safetensors", tmp_path / "code")
    assert (tmp_path / "code").read_text() == "0\n" and load_file(str(tmp_path / "a.safetensors"))
