"""The XYZ plot's axes: a value of an axis draws what the tag with that value in it draws."""

import sys

import pytest
import torch
from webui import fake_host

from sparsedict.sparsedict_core.errors import TagError
from sparsedict.webui_host import axes


@pytest.fixture
def plot(host):
    """Label → axis, as the host's plot has them after the pack has added its own."""
    assert axes.register()
    options = sys.modules["modules"].scripts.scripts_data[1].module.axis_options
    return {option.label.removeprefix(f"{axes.PREFIX} "): option for option in options if option.label.startswith(axes.PREFIX)}


@pytest.fixture
def at(plot, drawn, model):
    """Draws a tag as the plot does: values as a person types them, put on the processing before the picture."""

    def draw(tag, **values):
        p = fake_host.StableDiffusionProcessing(model)
        for label, value in values.items():
            axis = plot[label.replace("_", " ")]
            axis.apply(p, axis.type(value), [value])
        return drawn(*tag, p=p) if isinstance(tag, tuple) else drawn(tag, p=p)

    return draw


@pytest.mark.parametrize("tag, values, same", [
    ("zorp", {"strength": "0.25"}, "zorp:0.25"),
    ("zorp:2:keep=0.5", {"strength": "-1"}, "zorp:-1:keep=0.5"),
    ("zorp:0.5", {"share_kept": "0.25"}, "zorp:0.5:keep=0.25"),
    ("zorp:atoms=L0[1]", {"share_kept": "0.5"}, "zorp:keep=0.5"),
    ("zorp:keep=0.25", {"atoms_kept": "7"}, "zorp:top=7"),
    ("zorp:layers=L0-L2", {"atoms_kept": "3"}, "zorp:top=3:layers=L0-L2"),
    ("cat", {"adapter": "zorp"}, "zorp"),
    ("zorp", {"adapter": "animals/cat", "strength": "0.5"}, "animals/cat:0.5"),
    ("zorp", {"share_kept": "0.5", "atoms_kept": "3"}, "zorp:top=3"),
])  # fmt: skip
def test_a_value_draws_what_the_tag_with_it_draws(at, drawn, tag, values, same):
    assert torch.equal(at(tag, **values), drawn(same))


def test_only_the_first_tag_changes_and_without_one_nothing_does(at, drawn):
    assert torch.equal(at(("zorp", "cat:0.5"), strength="2"), drawn("zorp:2", "cat:0.5"))
    assert torch.equal(at((), strength="2"), drawn())
    assert torch.equal(drawn("zorp"), drawn("zorp:1"))  # the next picture has its own values


def test_a_wrong_value_stops_the_picture(at):
    with pytest.raises(TagError, match="no adapter 'zrop'"):
        at("zorp", adapter="zrop")
    with pytest.raises(ValueError):
        at("zorp", atoms_kept="many")


def test_they_are_added_once_and_offer_the_files_that_are_there_now(plot, host, tmp_path):
    options = sys.modules["modules"].scripts.scripts_data[1].module.axis_options
    count = len(options)
    assert axes.register() and len(options) == count and len(plot) == 4
    assert plot["adapter"].choices() == ["animals/cat", "zorp"]
    (tmp_path / "zorp.safetensors").rename(tmp_path / "moved.safetensors")
    assert plot["adapter"].choices() == ["animals/cat", "moved"]


def test_a_host_without_the_plot_has_no_axes(host):
    del sys.modules["modules"].scripts.scripts_data[1]
    assert not axes.register()
