"""The training tab's job without a web UI: one at a time, in the host's queue, and every mistake is a sentence."""

import html
import sys

import pytest
import torch
from webui import fake_host
from webui.models import flux

from sparsedict.sparsedict_core.errors import SparseDictError
from sparsedict.webui_host import network, training, training_tab


@pytest.fixture
def start(host, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "STATE", training.RunState())
    host.sd_model = fake_host.StableDiffusionProcessing(flux()).sd_model
    (tmp_path / "pictures").mkdir()

    def begin(images=str(tmp_path / "pictures"), name="made", resume=False):
        return training.start(images, name, "zorp", "", "concept", "quick", 1, 64, 0, "", resume)

    yield begin
    training.wait()


def test_a_second_run_is_refused_while_the_first_waits_for_the_hosts_queue(start, host):
    with sys.modules["modules.call_queue"].queue_lock:  # a picture is being drawn
        assert start() == "made.safetensors is being trained; pictures wait until it is over."
        with pytest.raises(SparseDictError, match="going on already"):
            start(name="another")
        assert training.STATE.job()["running"] and training.STATE.job()["stage"] is None
    training.wait()
    # What cannot be trained on is said where the run is shown.
    job = training.STATE.job()
    assert not job["running"] and "cannot be trained in a web UI yet" in job["ended"] and host.state.job == ""
    assert "made.safetensors" in start()  # nothing was written, so the name is still free


@pytest.mark.parametrize("change, part", [
    ({"images": "x" * 5000}, "is no folder"),
    ({"images": ""}, "is no folder"), ({"images": "/nowhere"}, "is no folder on this machine"), ({"name": ""}, "names no file"), ({"name": "../x"}, "leads out"),
])  # fmt: skip
def test_what_cannot_begin_says_why_and_leaves_nothing_running(start, change, part):
    with pytest.raises(SparseDictError, match=part):
        start(**change)
    assert training.STATE.job() is None and training.stop() == "no training is going on."


def test_the_tab_shows_a_refusal(start):
    said = training_tab.begin("/nowhere", "x", "zorp", "", "concept", "quick", 1, 64, 0, "", False)
    assert "Not started:" in said and "is no folder on this machine" in said


@pytest.mark.parametrize(("field", "value"), [("steps", None), ("seed", float("nan")), ("resolution", "")])
def test_an_empty_number_is_a_refusal_too(start, tmp_path, field, value):
    numbers = {"steps": 1, "resolution": 64, "seed": 0, field: value}
    said = training_tab.begin(str(tmp_path), "x", "zorp", "", "concept", "quick", *numbers.values(), "", False)
    assert "Not started:" in said and f"{field} is {value!r}; give a whole number." in html.unescape(said)


def test_tags_are_taken_off_before_it_trains(start, drawn, model):
    base = drawn()
    drawn("zorp", end=False)
    start()
    training.wait()
    assert not network.APPLIED.now
    assert torch.equal(drawn(), base)


def test_the_hosts_interrupt_ends_a_run_as_the_monitors_button_does(host):
    events = training.WebuiEvents(training.RunState())
    events.state.begin()
    assert not events.should_stop()
    host.state.interrupted = True
    assert events.should_stop()
    host.state.interrupted = False
    events.state.ask_to_keep()
    assert events.should_stop()


def test_the_newest_previews_first_picture_becomes_the_cards(host, tmp_path):
    events = training.WebuiEvents(training.RunState())
    events.state.begin()
    pictures = torch.zeros(2, 3, 8, 8)
    events.on_preview(5, ["a", "b"], pictures, pictures)
    events.finished(tmp_path / "made.safetensors", None, 5)
    assert (tmp_path / "made.preview.png").exists() and events.state.job()["file"] == "made.safetensors"
    assert events.state.preview().startswith(b"\xff\xd8")
