"""A base that is spread over two processes: each holds half of it, and they train the adapter that one process trains."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_pipelines
import torch
from tiny_large_pipelines import LARGE

sys.path.insert(0, str(Path(__file__).parent))
import sharded_run

from sparsedict.sparsedict_core.errors import SparseDictError
from sparsedict.sparsedict_core.file_format import load, read_metadata
from sparsedict.trainer.backends import open_backend


def test_two_processes_with_half_of_the_base_each_train_to_the_same_as_one(tmp_path, monkeypatch):
    """Of a family whose sites are seen in a step: before its weights are parted, as its class is another afterwards."""
    monkeypatch.setitem(tiny_pipelines.PIPELINES, "z_image", LARGE["z_image"])
    model = tiny_pipelines.save_tiny("z_image", tmp_path / "model")
    one, seen, share = sharded_run.run(model, tmp_path / "one" / "a.safetensors", False)
    assert share == 1 and len(seen) == 1
    two = tmp_path / "two" / "a.safetensors"
    # As in `test_two_processes_train_to_the_same_as_one`.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
              "--dynamo_backend", "no", "--main_process_port", "0", str(Path(sharded_run.__file__)), str(model), str(two)]  # fmt: skip
    done = subprocess.run(launch, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    told = re.findall(r"previews 1, holds (0\.\d+) of the weights", done.stdout)
    assert len(told) == 2 and all(0.45 < float(part) < 0.6 for part in told), done.stdout
    assert read_metadata(two)["base_fingerprint"] == read_metadata(one.path)["base_fingerprint"]
    for (key, mine), theirs in zip(load(one.path).state_dict().items(), load(two).state_dict().values(), strict=True):
        torch.testing.assert_close(theirs.float(), mine.float(), rtol=1e-2, atol=1e-2 * float(mine.float().abs().max()) + 1e-6, msg=key)


def test_one_process_alone_and_the_demo_base_are_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(SparseDictError, match=r"several processes.*accelerate launch"):
        open_backend(tiny_pipelines.save_tiny("flux", tmp_path), spread=True)
    with pytest.raises(SparseDictError, match=r"demo base.*--shard"):
        open_backend("demo", spread=True)
