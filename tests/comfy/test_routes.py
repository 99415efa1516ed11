"""The pack's own routes on the real host: what they serve, and what they refuse."""

import io
import json
import os
import struct
import urllib.error
import urllib.parse
import urllib.request
import zlib

import pytest
from PIL import Image
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


def test_a_name_from_windows_is_the_same_file(server, folder):
    status, _, body = adapter(server, FILE.replace(os.sep, "\\"))
    assert status == 200 and json.loads(body)["atoms"] == load(folder / FILE).atom_count


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
def test_nothing_else_is_served(server, folder, secret, name):
    for asked in {name, name.replace("../../", f"{folder}/../../"), str(secret)}:
        status, _, body = adapter(server, asked)
        assert status == 404 and list(json.loads(body)) == ["error"]


@pytest.fixture(scope="module")
def secret(server, folder, tmp_path_factory):
    """A file above the folder, and links in the folder to files and folders outside, as long as the tests here need them. The linked folder
    holds nothing else: the host follows links when it lists files, and would go round in circles below its own base folder."""
    above, elsewhere = server.base / "secret.safetensors", tmp_path_factory.mktemp("elsewhere")
    make_file(above)
    make_file(elsewhere / "secret.safetensors")
    links = folder / "out.safetensors", folder / "linked"
    links[0].symlink_to(above)
    links[1].symlink_to(elsewhere, target_is_directory=True)
    yield above
    for path in (*links, above):
        path.unlink()


def test_a_damaged_file_says_so(server, folder):
    (folder / "damaged.safetensors").write_bytes(b"no such thing")
    status, _, body = adapter(server, "damaged.safetensors")
    assert status == 422 and "damaged.safetensors" in json.loads(body)["error"]


def test_the_routes_only_read(server, folder):
    for path in ("/sparsedict/adapter", "/sparsedict/train", "/sparsedict/train/preview"):
        assert post(server, path) == 405


@pytest.mark.parametrize("data", [None, [], {}, {"node": "3"}, {"node": 3, "prompt": "a"}, {"node": ["3"], "prompt": None}])
def test_a_run_that_is_not_named_is_not_stopped(server, data):
    status, answer = server.post("/sparsedict/train/keep", data)
    assert status == 400 and "its node and its prompt" in answer["error"]


@pytest.mark.parametrize("data", [b"[" * 200_000, b'{"node": "\\ud800", "prompt": "a"}', b'{"node": "' + b"x" * 300_000 + b'"}', b"\xff"])
def test_a_run_is_not_named_by_half_a_character_or_brackets(server, data):
    status, body = send(server, data, "/sparsedict/train/keep")
    assert status == 400 and "its node and its prompt" in json.loads(body)["error"]


def test_where_nothing_is_trained_there_is_nothing_to_stop(server):
    status, answer = server.post("/sparsedict/train/keep", {"node": "3", "prompt": "none"})
    assert status == 409 and "nothing to stop" in answer["error"]


def post(server, path):
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", data=b"{}", method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def send(server, data, route="/sparsedict/sweep_gif"):
    """Status and body of what a route answers."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{route}", data if isinstance(data, bytes) else json.dumps(data).encode(),
        {"Content-Type": "application/json"},
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture(scope="module")
def frames(server):
    """Pictures as Sweep Viewer leaves them, and others that are none of its."""
    temp = server.base / "temp"
    temp.mkdir(exist_ok=True)
    names = [f"sparsedict_sweep_0000{number}_.png" for number in range(3)]
    for number, name in enumerate([*names, "other.png"]):
        Image.new("RGB", (2000, 1000), (80 * number, 10, 200)).save(temp / name)
    Image.new("RGB", (8, 8)).save(server.base / "sparsedict_sweep_secret.png")
    (temp / "sparsedict_sweep_link.png").symlink_to(server.base / "sparsedict_sweep_secret.png")
    return names


def test_a_sweep_becomes_a_gif(server, frames):
    status, body = send(server, {"frames": frames, "labels": ["none", "some", "all"]})
    assert status == 200
    with Image.open(io.BytesIO(body)) as animation:
        assert (animation.format, animation.n_frames, animation.width) == ("GIF", 3, 1024)


@pytest.mark.parametrize("name", [
    "other.png", "gone.png", "../sparsedict_sweep_secret.png", "sparsedict_sweep_link.png", "/etc/passwd", "", ".", "../temp",
])  # fmt: skip
def test_only_pictures_of_a_sweep_are_read(server, frames, name):
    status, body = send(server, {"frames": [frames[0], name], "labels": ["", ""]})
    assert status == 404 and "run the sweep again" in json.loads(body)["error"]


@pytest.mark.parametrize("data", [
    b"no json", [], None, {}, {"frames": []}, {"frames": [1], "labels": [""]}, {"frames": ["a"], "labels": []},
    {"frames": ["a\0"], "labels": [""]}, {"frames": ["a"] * 101, "labels": [""] * 101}, {"frames": ["a"], "labels": ["\n" * 20_000]},
    {"frames": ["\ud800"], "labels": [""]}, {"frames": ["a"], "labels": ["\udfff"]}, {"frames": ["a" * 300], "labels": [""]},
    b"[" * 200_000, b'{"frames":' * 20_000, b" " * 2_000_000, b"\xff\xfe",
])  # fmt: skip
def test_what_is_no_sweep_is_refused(server, data):
    status, body = send(server, data)
    assert status == 400 and "a GIF takes" in json.loads(body)["error"]


def bomb():
    """A picture of 40,000 × 40,000 pixels in 100 bytes, of which nothing is there."""
    data = io.BytesIO()
    Image.new("1", (1, 1)).save(data, "PNG")
    head = b"IHDR" + struct.pack(">II", 40_000, 40_000) + data.getvalue()[24:29]
    return data.getvalue()[:12] + head + struct.pack(">I", zlib.crc32(head)) + data.getvalue()[33:]


@pytest.mark.parametrize("content", [b"", b"no picture", b"GIF89a", bomb(), b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_what_is_no_picture_is_said(server, frames, content):
    (server.base / "temp" / "sparsedict_sweep_bad.png").write_bytes(content)
    status, body = send(server, {"frames": [frames[0], "sparsedict_sweep_bad.png"], "labels": ["", ""]})
    assert status == 422 and "picture of the sweep" in json.loads(body)["error"]


def test_a_file_whose_name_is_no_text_is_served_or_refused(server, folder):
    for name in ("%FF.safetensors", "%ED%A0%80.safetensors", "a" * 5000 + ".safetensors", "%00", "a%0Ab.safetensors"):
        status, _, body = get(server, f"/sparsedict/adapter?file={name}")
        assert status == 404 and json.loads(body)["error"].isprintable()
