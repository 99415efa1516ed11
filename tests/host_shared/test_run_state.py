"""What a page that is loaded later is told of a run, and which run a page may end, whatever the host tells its runs apart by."""

import time

from sparsedict.host_shared.run_events import RunEvents
from sparsedict.host_shared.run_state import POINTS, RunState

ORIGIN = {"node": "3", "prompt": "a", "workflow": None}


def test_a_run_is_ended_by_its_origin_or_a_part_of_it():
    state = RunState()
    assert not state.ask_to_keep() and state.job() is None
    state.begin(ORIGIN)
    for other in ({"node": "4", "prompt": "a"}, {"node": "3", "prompt": None}, {"tab": "3"}):
        assert not state.ask_to_keep(other) and not state.keep_asked()
    assert state.ask_to_keep({"node": "3", "prompt": "a"}) and state.keep_asked()
    state.begin()
    assert not state.keep_asked()
    assert not state.ask_to_keep({"node": "3"}) and state.ask_to_keep()
    state.end()
    assert not state.ask_to_keep()


def test_a_job_has_its_origin_and_its_points_have_not():
    state = RunState()
    state.begin(ORIGIN)
    for step in range(POINTS + 2):
        state.note({**ORIGIN, "event": "step", "step": step})
    job = state.job()
    assert {name: job[name] for name in ORIGIN} == ORIGIN
    assert job["points"][-1] == {"step": POINTS + 1} and len(job["points"]) <= POINTS
    state.begin()
    assert not ORIGIN.keys() & state.job().keys()


def test_the_time_left_of_a_stage_goes_by_what_is_done_of_it(monkeypatch):
    now, state = 100.0, RunState()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    state.begin()
    events = RunEvents(state)
    for began, first in ((100.0, 0), (200.0, 4)):  # each bucket of pictures is a stage of its own
        now = began
        events.on_stage("quiet samples")
        now += 10
        events.on_progress("quiet samples", first, 16)
    assert state.job()["stage"] == {"stage": "quiet samples", "done": 4, "total": 16, "seconds_left": 30.0}
    events.on_stage("quiet samples")
    now += 10
    events.on_progress("quiet samples", 0, 16)
    assert state.job()["stage"]["seconds_left"] is None
