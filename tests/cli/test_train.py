"""train and shrink: which settings reach the trainer, and what is refused before it starts."""

import dataclasses
import json

import pytest
from PIL import Image

from sparsedict.cli import train
from sparsedict.cli.common import open_model
from sparsedict.sparsedict_core.file_format import load
from sparsedict.trainer.config import TrainConfig


@pytest.fixture
def chosen(cli, tmp_path, monkeypatch):
    """The settings that `train` with these options hands on."""

    def call(*options):
        seen = {}
        monkeypatch.setattr(train, "make_config", lambda preset, given: seen.update(given, preset=preset))
        monkeypatch.setattr(train, "start", lambda *_: None)
        result = cli("train", tmp_path, "--out", tmp_path / "a.safetensors", *options)
        assert result.code == 0, result.err
        return seen

    return call


def test_what_is_not_given_is_left_to_the_preset(chosen, tmp_path):
    assert chosen() == {"preset": "concept", "images": tmp_path, "out": tmp_path / "a.safetensors", "overwrite": False}


def test_names_that_kohyas_users_know(chosen):
    seen = chosen("--max_train_steps".replace("_", "-"), 40, "--learning-rate", "5e-3", "--network-dim", 8, "--train-batch-size", 2, "--preset", "edit")
    assert (seen["steps"], seen["learning_rate"], seen["rank"], seen["batch_size"], seen["preset"]) == (40, 5e-3, 8, 2, "edit")


def test_flags(chosen):
    seen = chosen("--no-moments", "--gradient-checkpointing", "--sample-prompt", "a", "--sample-prompt", "b", "--quiet-weight", 0)
    assert seen["moments"] is False and seen["gradient_checkpointing"] and seen["preview_prompts"] == ["a", "b"] and seen["quiet_weight"] == 0


def test_resume_goes_on_at_the_same_place(chosen, tmp_path):
    (tmp_path / "a.safetensors").touch()
    seen = chosen("--resume")
    assert seen["resume"] is True and seen["overwrite"] is False  # the trainer knows whether the file is this run's


def test_every_option_is_a_setting_of_the_trainer():
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    own = {"preset", "model", "device", "dtype", "show_config", "file", "shard", "each"}
    assert {parameter.name for parameter in train.command.params} - own <= fields


def test_nothing_is_overwritten(refused, tmp_path):
    (tmp_path / "a.safetensors").touch()
    assert "exists" in refused("train", tmp_path, "--out", tmp_path / "a.safetensors")


@pytest.mark.parametrize("share", ["0", "150%", "small"])
def test_shrink_refuses_shares_that_are_none(refused, adapter_file, tmp_path, share):
    assert "share" in refused("shrink", adapter_file, "--to", share, "--out", tmp_path / "small.safetensors")


def test_more_atoms_than_their_moments_have_room_are_refused_at_once(refused, tmp_path):
    assert "atoms is 1000000; give a whole number from 1 to 8192" in refused("train", tmp_path, "--atoms", 1_000_000, "--out", tmp_path / "a.safetensors")


def test_a_refused_command_leaves_no_folder(refused, tmp_path):
    refused("train", tmp_path, "--out", tmp_path / "new" / "deep" / "a.safetensors")
    assert not (tmp_path / "new").exists()


def test_show_config_prints_the_presets_settings_with_mine_over_them(cli, tmp_path):
    result = cli("train", tmp_path, "--preset", "edit", "--steps", 7, "--show-config", "--out", tmp_path / "a.safetensors")
    config = json.loads(result.out)
    assert (config["steps"], config["nested"], config["quiet_weight"]) == (7, 0.5, 0.0)


@pytest.mark.parametrize(
    "options, part",
    [
        (["--batch-size", 3, "--gradient-accumulation-steps", 2], "no multiple"),
        (["--nested", 2], "share from 0 to 1"),
        (["--density", 0], "density"),
        (["--lr", -1], "learning_rate is -1.0"),
        (["--lr", "inf"], "learning_rate is inf"),
        (["--lr", "nan"], "learning_rate is nan"),
        (["--quiet-weight", "1e999"], "quiet_weight is inf"),
        (["--min-snr-gamma", "nan"], "min_snr_gamma is nan"),
        (["--encoder", "none"], "none"),
        (["--model", "nothing/here"], "no model at"),
        (["--device", "toaster"], "unknown device"),
    ],
)
def test_bad_settings(refused, tmp_path, options, part):
    assert part in refused("train", tmp_path, *options, "--out", tmp_path / "a.safetensors")


@pytest.mark.parametrize("number, code", [(None, 0), (2, 130), (15, 143)])
def test_the_exit_code_tells_what_ended_a_training_early(cli, tmp_path, monkeypatch, number, code):
    from types import SimpleNamespace

    def stopped(config, backend):
        config.out.write_bytes(b"1")
        return SimpleNamespace(path=config.out, adapter=SimpleNamespace(atom_count=1), signal=number)

    monkeypatch.setattr(train, "open_model", lambda *_: None)
    monkeypatch.setattr(train, "fitted", lambda config, *_: config)
    monkeypatch.setattr("sparsedict.trainer.train", stopped)
    assert cli("train", tmp_path, "--out", tmp_path / "a.safetensors").code == code


@pytest.fixture
def concepts(tmp_path):
    """Two sub-folders with a picture each, named as kohya's."""
    folder = tmp_path / "concepts"
    for name in ("2_zorp in the center", "quax", "masks"):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (64, 64), (len(name) * 9, 40, 90)).save(folder / name / "a.png")
    return folder


SHORT = ("--steps", 2, "--batch-size", 2, "--atoms", 8, "--rank", 2)


def test_each_concept_has_a_dictionary_of_its_own(cli, concepts, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(train, "open_model", lambda *model: opened.append(model) or open_model(*model))
    config = tmp_path / "short.toml"
    config.write_text('quiet_samples = 0\nplaceholder = "blick"\n')  # as a file that a run wrote has it
    result = cli("train", concepts, "--each", "--config", config, *SHORT, "--out", tmp_path / "adapters")
    assert result.code == 0, result.err
    found = {name: load(tmp_path / "adapters" / f"{name}.safetensors") for name in ("zorp", "quax")}
    assert sorted(path.name for path in (tmp_path / "adapters").glob("*.safetensors")) == ["quax.safetensors", "zorp.safetensors"] and len(opened) == 1
    assert [adapter.trigger_words for adapter in found.values()] == [["zorp"], ["quax"]]
    assert found["zorp"].metadata["training"]["captions"] == ["zorp in the center"]


def test_each_has_its_own_word_and_no_other(refused, concepts, tmp_path):
    assert "leave --word out" in refused("train", concepts, "--each", "--word", "zorp", "--out", tmp_path / "adapters")


def test_a_run_that_goes_on_takes_over_what_is_not_given(cli, refused, concepts, tmp_path):
    config = tmp_path / "short.toml"
    config.write_text("quiet_samples = 0\n")
    out = tmp_path / "a.safetensors"
    assert cli("train", concepts / "quax", "--word", "quax", "--config", config, *SHORT, "--out", out).code == 0
    result = cli("train", concepts / "quax", "--resume", "--steps", 3, "--out", out)
    assert result.code == 0, result.err
    adapter = load(out)
    assert adapter.trigger_words == ["quax"] and adapter.metadata["training"]["steps"] == 3 and adapter.config.atoms == 8
    assert "atoms = 8, this run has 16" in refused("train", concepts / "quax", "--resume", "--steps", 3, "--atoms", 16, "--out", out)


def test_several_concepts_share_a_dictionary(cli, concepts, tmp_path):
    (concepts / "quax").rename(concepts / "1_quax")
    config = tmp_path / "short.toml"
    config.write_text("quiet_samples = 0\n")
    result = cli("train", concepts, "--config", config, *SHORT, "--out", tmp_path / "a.safetensors")
    assert result.code == 0, result.err
    assert sorted(load(tmp_path / "a.safetensors").metadata["training"]["captions"]) == ["quax", "zorp in the center"]


def test_concepts_need_folders(refused, tmp_path):
    assert "no sub-folders" in refused("train", tmp_path, "--each", "--out", tmp_path / "adapters")
