"""Which file a run writes, and which run goes on: by what lies in the folder."""

import os

from sparsedict.host_shared.file_names import unused
from sparsedict.host_shared.run_settings import begun, file_of_run


def made(folder, name, steps=(), written=0):
    """A training's checkpoints, the newest of them `written` seconds after the epoch."""
    (folder / f"{name}.checkpoints").mkdir()
    for step in steps:
        path = folder / f"{name}.checkpoints" / f"step-{step:06d}.safetensors"
        path.touch()
        os.utime(path, (written, written))


def test_a_name_is_taken_where_a_training_has_left_checkpoints(tmp_path):
    path = tmp_path / "a.safetensors"
    made(tmp_path, "a", [300])
    (tmp_path / "a_2.safetensors").touch()
    assert unused(path).name == file_of_run(path, resume=False).name == "a_3.safetensors"


def test_resume_takes_the_run_of_this_name_whose_checkpoint_was_written_last(tmp_path):
    path = tmp_path / "a.b.safetensors"
    assert begun(path) is None and file_of_run(path, resume=True) == path
    made(tmp_path, "a.b", [200, 300], written=10)
    made(tmp_path, "a.b_4", [100, 150], written=20)
    made(tmp_path, "a.b_5")
    made(tmp_path, "a.b_art", [900], written=30)
    made(tmp_path, "aXb_6", [900], written=30)
    assert begun(path).name == file_of_run(path, resume=True).name == "a.b_4.safetensors"
    assert begun(tmp_path / "a.b_4.safetensors").name == "a.b_4.safetensors"
    assert begun(tmp_path / "a.b_5.safetensors") is None
