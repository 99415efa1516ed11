"""One description of a setting: what the configuration, the command line, the node and its help page make of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sparsedict.cli import train
from sparsedict.sparsedict_core.encoders import encoder_names
from sparsedict.sparsedict_core.errors import TrainingError
from sparsedict.tools.make_locales import TRAIN_PAGE, with_settings
from sparsedict.trainer.config import TrainConfig
from sparsedict.trainer.options import options_of, widgets

OPTIONS = options_of(TrainConfig)


def test_every_setting_is_explained_and_keeps_its_own_bounds():
    for name, option in OPTIONS.items():
        assert option.help.endswith("."), name
        assert option.wrong(getattr(TrainConfig(), name)) is None, name
    assert all(encoder in OPTIONS["encoder"].help for encoder in encoder_names())


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.bounds or option.choices])
def test_what_is_out_of_bounds_is_named_in_one_sentence(name):
    option = OPTIONS[name]
    low, high, whole = option.bounds or (0, 0, False)
    for value in ("nonsense", True, float("nan"), *([low - 1, high + 1] if option.bounds else []), *([low + 0.5] if whole else [])):
        if value != value and not option.bounds:
            continue
        if value == float("inf"):
            continue  # no upper bound
        with pytest.raises(TrainingError, match=f"^{name} is .*; give .*\\.$"):
            TrainConfig(**{name: value})


def test_the_command_line_shows_each_setting_that_has_flags():
    shown = {parameter.name: parameter for parameter in train.command.params}
    for name, option in OPTIONS.items():
        if option.flags:
            assert shown[name].help == option.help and shown[name].default is None and set(option.flags[0].split("/")[:1]) <= set(shown[name].opts)


def test_a_widget_has_a_place_of_its_own_and_a_default_that_its_setting_takes():
    shown = widgets(TrainConfig)
    places = [option.widget.place for option in shown]
    assert len(set(places)) == len(places) and not {14, 15} & set(places)  # those are the sampler's
    for option in shown:
        widget = option.widget
        if widget.unset is None and not widget.choices and not option.name.endswith("_prompts"):
            TrainConfig(**{option.name: widget.default})


def test_the_help_page_of_the_node_has_the_settings_as_they_are():
    page = TRAIN_PAGE.read_text(encoding="utf-8")
    assert with_settings(page) == page, "make it anew: python -m sparsedict.tools.make_locales"
    assert all(option.help in page for option in widgets(TrainConfig))


def test_settings_are_described_without_pytorch():
    code = "import sys, sparsedict.trainer.options, sparsedict.trainer.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd="/").returncode == 0
