"""The pack's own routes on the real host: what they serve, and what they refuse."""

import json
import os
import urllib.error
import urllib.parse
import urllib.request

import pytest
from test_nodes_over_http import FILE, make_file

from sparsedict.sparsedict_core.file_format import load


@pytest.fixture(scope="module")
def folder(server):
    folder = server.base / "models" / "sparse_dicts"
    make_file(folder / FILE)
    return folder


def get(server, path, **headers):
    """Status, headers and body, also of a refusal."""
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def adapter(server, file, more="", **headers):
    return get(server, f"/sparsedict/adapter?file={urllib.parse.quote(file, safe='')}{more}", **headers)


def test_a_file_is_described(server, folder):
    status, headers, body = adapter(server, FILE)
    table, value = json.loads(body), load(folder / FILE)
    assert status == 200 and headers.get_content_type() == "application/json"
    assert table["file"] == FILE and table["atoms"] == value.atom_count and table["trigger_words"] == ["circle"]
    assert len(table["sites"]) == len(value.sites) and not table["has_moments"] and table["greedy"] is None


def test_it_is_sent_once_until_the_file_changes(server, folder):
    _, headers, _ = adapter(server, FILE)
    tag = headers["ETag"]
    status, headers, body = adapter(server, FILE, **{"If-None-Match": tag})
    assert (status, headers["ETag"], body) == (304, tag, b"")
    assert adapter(server, FILE, "&order=greedy", **{"If-None-Match": tag})[0] == 200
    path = folder / FILE
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 10**9))
    status, headers, _ = adapter(server, FILE, **{"If-None-Match": tag})
    assert status == 200 and headers["ETag"] != tag


@pytest.mark.parametrize("name", [
    "", "nothing.safetensors", "../../secret.safetensors", "made/../../../secret.safetensors", "..\\..\\secret.safetensors",
    "/etc/passwd", "made", "made/noise", "\0.safetensors", "noise.safetensors\0.png", "out.safetensors", "linked/secret.safetensors",
])  # fmt: skip
def test_nothing_else_is_served(server, folder, name):
    secret = server.base / "secret.safetensors"
    if not secret.exists():
        make_file(secret)
        (folder / "out.safetensors").symlink_to(secret)
        (folder / "linked").symlink_to(server.base, target_is_directory=True)
    for asked in {name, name.replace("../../", f"{folder}/../../"), str(secret)}:
        status, _, body = adapter(server, asked)
        assert status == 404 and list(json.loads(body)) == ["error"]


def test_a_damaged_file_says_so(server, folder):
    (folder / "damaged.safetensors").write_bytes(b"no such thing")
    status, _, body = adapter(server, "damaged.safetensors")
    assert status == 422 and "damaged.safetensors" in json.loads(body)["error"]


def test_the_routes_only_read(server, folder):
    for path in ("/sparsedict/adapter", "/sparsedict/train"):
        assert post(server, path) == 405


def post(server, path):
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", data=b"{}", method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
