"""Routes' answers without a host: what is in a file, once until it changes; the rest is tried over HTTP in tests/comfy/test_routes.py."""

import json
import os

import pytest
import torch
from webui.models import write

from sparsedict.host_shared.answers import KEPT, Refusal, gif_answer, table_answer
from sparsedict.sparsedict_core.file_format import load


def test_a_file_is_read_once_until_it_changes_and_each_host_adds_what_it_says_of_it(tmp_path):
    path, read = write(tmp_path), []

    def reader(file):
        read.append(file)
        return load(file)

    tag, body = table_answer(path, {"file": "zorp"}, read=reader)
    table = json.loads(body)
    assert table["file"] == "zorp" and table["atoms"] == load(path).atom_count
    assert table_answer(path, {"file": "zorp"}, read=reader) == (tag, body) and len(read) == 1
    # Another name of the same file is answered with that name.
    assert json.loads(table_answer(path, {"file": "sub/zorp"}, read=reader)[1])["file"] == "sub/zorp"
    assert table_answer(path, {"file": "zorp"}, known=f'"other", W/{tag}', read=reader) == (tag, None)
    assert table_answer(path, {"file": "zorp"}, greedy=True)[0] != tag
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 10**9))
    assert table_answer(path, {"file": "zorp"}, known=tag, read=reader)[1] is not None


def test_answers_in_memory_are_few(tmp_path):
    path, read = write(tmp_path), []
    for number in range(KEPT + 1):
        table_answer(path, {"file": str(number)})
    table_answer(path, {"file": "0"}, read=lambda file: read.append(file) or load(file))
    assert read


def test_a_file_that_cannot_be_used_is_a_refusal_that_names_it(tmp_path):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"no such thing")
    with pytest.raises(Refusal, match=r"damaged\.safetensors") as refused:
        table_answer(damaged, {})
    assert refused.value.status == 422
    with pytest.raises(Refusal, match=r"^gone\.safetensors: "):
        table_answer(tmp_path / "gone.safetensors", {})


def test_a_gif_is_made_of_a_sweeps_pictures_only(tmp_path):
    from sparsedict.pictures import save_image, to_image

    for name in ("sweep_1.png", "other.png"):
        save_image(to_image(torch.zeros(3, 8, 8)), tmp_path / name)
    data = {"frames": ["sweep_1.png"] * 2, "labels": ["a", "b"]}
    assert gif_answer(data, tmp_path, "sweep").startswith(b"GIF")
    for wrong, status in (({**data, "frames": ["other.png", "sweep_1.png"]}, 404), (None, 400), ({**data, "labels": ["a"]}, 400)):
        with pytest.raises(Refusal) as refused:
            gif_answer(wrong, tmp_path, "sweep")
        assert refused.value.status == status
