"""The pack twice in custom_nodes, as after a clone beside what the host's manager has installed."""

import shutil
import time

import pytest
from host import PACK, PROJECT, Host
from test_train_node import graph

from sparsedict.tools.host_in_process import make_base

OTHER = "z-sparsedict-copy"  # after the other one in the host's order


@pytest.fixture(scope="module")
def twice(host_root, tmp_path_factory):
    base = make_base(tmp_path_factory.mktemp("twice"))
    parts = ["__init__.py", "nodes", "web", "trainer", "sparsedict_core", "comfyui_host", "host_shared", "lora", "demo_model", "pictures", "demo/concepts"]
    for part in parts:
        target = base / "custom_nodes" / OTHER / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (PROJECT / part).is_dir():
            shutil.copytree(PROJECT / part, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(PROJECT / part, target)
    with Host(host_root, base) as host:
        yield host


def test_the_log_names_both_folders_in_one_line(twice):
    (line,) = [line for line in twice.log.splitlines() if "SparseDict is installed twice" in line]
    assert str(PROJECT) in line and str(twice.base / "custom_nodes" / OTHER) in line and PACK not in line.replace(str(PROJECT), "").replace("SparseDict is", "")


def test_stop_and_keep_reaches_the_copy_that_trains(twice):
    with twice.listen() as client:
        prompt = twice.queue(graph("kept", steps=3000, checkpoint_every=1000), client.id)
        while not [data for kind, data in client.events if kind == "sparsedict.train" and data["event"] == "step"]:
            time.sleep(0.05)
        status, answer = twice.post("/sparsedict/train/keep", {"node": "3", "prompt": prompt})
        assert (status, answer) == (200, {"stopping": True})
        assert twice.result(prompt)["5"]["text"] and twice.get("/sparsedict/train")["file"] == "kept.safetensors"
