"""A base that is spread over two processes: each holds half of it, and they train the adapter that one process trains."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_pipelines

sys.path.insert(0, str(Path(__file__).parent))
import sharded_run

from sparsedict.sparsedict_core.errors import SparseDictError
from sparsedict.sparsedict_core.file_format import load, read_metadata
from sparsedict.trainer.backends import open_backend


def test_two_processes_with_half_of_the_base_each_train_to_the_same_as_one(tmp_path):
    """Flux, whose captions are all of one length; Z-Image, whose are not (what that does to the quiet term: docs/method.md), and whose sites are
    seen in a step, before its class is another."""
    models = {name: tiny_pipelines.save_tiny(name, tmp_path / name) for name in ("flux", "z_image")}
    # As in `test_two_processes_train_to_the_same_as_one`.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
              "--dynamo_backend", "no", "--main_process_port", "0", str(Path(sharded_run.__file__)), str(tmp_path), *models]  # fmt: skip
    done = subprocess.run(launch, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    told = re.findall(r"(flux|z_image): previews 1, holds (0\.\d+) of the weights", done.stdout)
    assert sorted(name for name, _ in told) == ["flux", "flux", "z_image", "z_image"], done.stdout
    assert all(0.45 < float(part) < 0.6 for _, part in told), done.stdout
    one, seen, share = sharded_run.run(models["flux"], tmp_path / "one" / "flux.safetensors", False)
    assert share == 1 and len(seen) == 1
    two = tmp_path / "two" / "flux.safetensors"
    assert read_metadata(two)["base_fingerprint"] == read_metadata(one.path)["base_fingerprint"]
    for (key, mine), theirs in zip(load(one.path).state_dict().items(), load(two).state_dict().values(), strict=True):
        if mine.is_floating_point():
            assert float((theirs.float() - mine.float()).norm()) <= 5e-3 * float(mine.float().norm()) + 1e-6, key
    assert load(tmp_path / "two" / "z_image.safetensors").atom_count == 16 * len(open_backend(models["z_image"]).watch().sites)


def test_one_process_alone_and_the_demo_base_are_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(SparseDictError, match=r"several processes.*accelerate launch"):
        open_backend(tiny_pipelines.save_tiny("flux", tmp_path), spread=True)
    with pytest.raises(SparseDictError, match=r"demo base.*--shard"):
        open_backend("demo", spread=True)
