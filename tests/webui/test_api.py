"""The routes' functions, called as the host's FastAPI calls them; over a real server they are called in test_real_hosts.py."""

import json
import sys
import types

import pytest
from webui.models import write

from sparsedict.webui_host import api, training


class HTTPException(Exception):
    def __init__(self, status_code, detail=None):
        self.status_code, self.detail = status_code, detail


class Response:
    def __init__(self, content=None, media_type=None, headers=None):
        self.body, self.media_type = content, media_type


class App:
    """FastAPI's app, as far as it is asked."""

    def __init__(self):
        self.routes = {}

    def add_api_route(self, path, endpoint, *, methods, response_class=None):
        for method in methods:
            self.routes[method, path.removeprefix("/sparsedict/v1/")] = endpoint


@pytest.fixture
def call(host, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", types.SimpleNamespace(HTTPException=HTTPException, Response=Response))
    app = App()
    api.register(app)
    return lambda route, method="GET", /, **query: app.routes[method, route](**query)


def refused(call, *route, **query):
    with pytest.raises(HTTPException) as found:
        call(*route, **query)
    return found.value.status_code, found.value.detail


def test_files_are_listed_with_their_folders_and_seen_when_they_come(call, tmp_path):
    assert [each["name"] for each in call("list")] == ["animals/cat", "zorp"]
    write(tmp_path, "new")
    assert [each["name"] for each in call("refresh", "POST")] == ["animals/cat", "new", "zorp"]
    assert call("list")[1]["bytes"] == (tmp_path / "new.safetensors").stat().st_size


def test_a_files_atoms_are_told_by_its_whole_or_its_own_name(call):
    answer = call("inspect", name="animals/cat")
    table = json.loads(answer.body)
    assert answer.media_type == "application/json" and table["name"] == "animals/cat" and len(table["hash"]) == 12
    assert table["atoms"] == sum(len(site["atom_ids"]) for site in table["sites"]) > 0
    assert json.loads(call("inspect", name="cat").body)["hash"] == table["hash"]
    assert call("thumbnail", name="cat").body.startswith(b"\x89PNG")


def test_what_is_not_there_or_damaged_is_a_sentence(call, tmp_path):
    (tmp_path / "damaged.safetensors").write_bytes(b"no such thing")
    for route in ("inspect", "thumbnail"):
        assert refused(call, route, name="zrop")[0] == 404 and "near names are zorp" in refused(call, route, name="zrop")[1]
        assert refused(call, route, name="../zorp")[0] == 404
        status, text = refused(call, route, name="damaged")
        assert status == 422 and "damaged.safetensors" in text
    assert refused(call, "js/{folder}/{name}", folder="webui_host", name="api.py")[0] == 404


def test_where_nothing_was_trained_there_is_nothing_to_show_or_to_stop(call, monkeypatch):
    monkeypatch.setattr(training, "STATE", training.RunState())
    assert call("train") is None
    assert refused(call, "train/preview")[0] == 404
    assert refused(call, "train/keep", "POST") == (409, "no training is going on, so there is nothing to stop.")
    training.STATE.begin()
    assert call("train")["running"] and call("train/keep", "POST") == {"stopping": True} and training.STATE.keep_asked()
