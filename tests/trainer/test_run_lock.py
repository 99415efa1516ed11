"""One run at a time in a folder of checkpoints; a kill lets go of it."""

import subprocess
import sys

import pytest

from sparsedict.sparsedict_core.errors import TrainingError
from sparsedict.trainer.run_lock import only_run_in

HOLDER = """
import sys, time
from pathlib import Path
from sparsedict.trainer.run_lock import only_run_in
with only_run_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(120)
"""


def test_a_second_run_is_refused_until_the_first_is_over_or_killed(tmp_path):
    folder = tmp_path / "a.checkpoints"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(TrainingError, match=r"another run is writing its checkpoints to .*a\.checkpoints"), only_run_in(folder):
            pass
        assert folder.exists()
    finally:
        holder.kill()
        holder.communicate()
    with only_run_in(folder), pytest.raises(TrainingError, match="another run"), only_run_in(folder):
        pass
    assert not folder.exists()


def test_what_was_put_there_stays(tmp_path):
    with only_run_in(tmp_path / "a.checkpoints"):
        (tmp_path / "a.checkpoints" / "step-000001.safetensors").touch()
    assert [path.name for path in (tmp_path / "a.checkpoints").iterdir()] == ["step-000001.safetensors"]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "a.checkpoints").touch()
    with pytest.raises(TrainingError, match=r"no checkpoint can be written to .*a\.checkpoints"), only_run_in(tmp_path / "a.checkpoints"):
        pass
