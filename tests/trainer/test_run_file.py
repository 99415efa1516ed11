"""Settings in a .toml file: what a run writes, a run reads."""

from __future__ import annotations

import json
import os
import sys

import pytest
from click.testing import CliRunner

from sparsedict.cli.train import command
from sparsedict.sparsedict_core.errors import SparseDictError, TrainingError
from sparsedict.trainer.captions import read_text
from sparsedict.trainer.config import TrainConfig
from sparsedict.trainer.run_file import read_settings, write_settings

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="TOML is read from Python 3.11 on")


def test_what_is_written_is_read_again(tmp_path):
    config = TrainConfig(
        out=tmp_path / "a.safetensors", images="photos", placeholder='zo"rp\\\n', quiet_prompts=["ä, b", "c"], betas=(0.5, 0.9), learning_rate=1e-5, rank=None,
        flip=True, resume=True,
    )  # fmt: skip
    again = TrainConfig(**{"rank": None, **read_settings(write_settings(config))}, out=config.out, images="photos", resume=True)
    assert again == config


@pytest.mark.parametrize("text, words", [
    ("steps = ", "TOML"), ("step = 5", "did you mean steps"), ("steps = 'many'", "another kind"), ("flip = 1", "another kind"), ("betas = [0.1]", "another kind"),
    ("out = 'x.safetensors'", "cannot be set there"), ("quiet_prompts = [1]", "another kind"),
])  # fmt: skip
def test_a_file_that_cannot_be_meant_is_named(tmp_path, text, words):
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(TrainingError, match=words) as error:
        read_settings(tmp_path / "run.toml")
    assert "run.toml" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(TrainingError, match=r"none\.toml"):
        read_settings(tmp_path / "none.toml")


@pytest.mark.skipif(os.name != "posix", reason="made of what only POSIX has")
def test_only_regular_files_are_read(tmp_path):
    """A pipe would keep the run waiting for its writer."""
    os.mkfifo(tmp_path / "pipe")
    for read in (read_settings, read_text):
        with pytest.raises(SparseDictError, match=r"pipe cannot be read.*it is a pipe, a socket or a device"):
            read(tmp_path / "pipe")


def test_options_go_before_the_file_and_the_file_before_the_preset(tmp_path):
    (tmp_path / "run.toml").write_text("steps = 7\ndensity = 0.3\natoms = 9\n")
    asked = ["photos", "--preset", "style", "--config", str(tmp_path / "run.toml"), "--atoms", "11", "--out", str(tmp_path / "a.safetensors"), "--show-config"]
    shown = json.loads(CliRunner().invoke(command, asked).output)
    assert (shown["steps"], shown["density"], shown["atoms"], shown["quiet_weight"]) == (7, 0.3, 11, 0.0)
