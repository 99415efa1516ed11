"""Two processes train to what one trains to, and stop together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from few_probes import probe_few_rows
from safetensors.torch import load_file, save_file
from small_base import small_base

sys.path.insert(0, str(Path(__file__).parent))
from small_run import run

from sparsedict.trainer import Callbacks

TO_THE_END = {"steps": 3, "batch_size": 8, "gradient_accumulation": 2, "quiet_ramp": (0.0, 0.1)}
STOPPED = {"steps": 8, "batch_size": 8, "quiet_share": 0.375, "revive_after": 2, "nested": 0.0, "encoder_settings": {"momentum": 0.0}}


class WishesToStop(Callbacks):
    """After step `last`, and only in one process."""

    def __init__(self, last, wishes=True):
        self.done, self.last, self.wishes = 0, last, wishes

    def on_step(self, report):
        self.done = report.step

    def should_stop(self):
        return self.wishes and self.done == self.last


def in_one_of_two(folder):
    """What each process of `two_processes` does."""
    probe_few_rows()
    rank = os.environ["RANK"]
    backend = small_base()
    run(folder / "end", backend, **TO_THE_END)
    # Among several, the wish is asked for before a step's exchange and heeded after it.
    result = run(folder / "stopped", backend, WishesToStop(4, rank == "1"), **STOPPED)
    # Files, as the prints of two processes run into each other.
    (folder / f"rank{rank}.txt").write_text(f"process {rank} of {os.environ['WORLD_SIZE']}, {result.steps} steps")
    save_file({k: v.contiguous().clone() for k, v in result.adapter.state_dict().items()}, str(folder / f"rank{rank}.safetensors"))


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """The folder in which two processes have trained together, once to the end and once until one of them wished to stop."""
    folder = tmp_path_factory.mktemp("two")
    program = folder / "program.py"
    tests = Path(__file__).parents[1]
    program.write_text(
        f"import sys; sys.path[:0] = [{str(tests)!r}, {str(tests / 'trainer')!r}]\n"
        "import pathlib, test_two_processes\n"
        f"test_two_processes.in_one_of_two(pathlib.Path({str(folder)!r}))\n"
    )
    # `--cpu` would start one process only (accelerate wants mpirun for more); without a GPU, --multi_gpu's processes are on the CPU.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
              "--dynamo_backend", "no", "--main_process_port", "0", str(program)]  # fmt: skip
    done = subprocess.run(launch, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def test_two_processes_train_to_the_same_as_one(tmp_path, backend, two_processes):
    one, two = load_file(str(run(tmp_path, backend, **TO_THE_END).path)), load_file(str(two_processes / "end" / "a.safetensors"))
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert torch.allclose(value.float(), two[key].float(), rtol=5e-3, atol=5e-3), key


def test_two_processes_stop_together_and_revive_the_same_atoms(tmp_path, backend, two_processes):
    """Only the second process wants to stop; parts hold unequal numbers of quiet rows; atoms die and are revived on the way."""
    assert sorted(path.read_text() for path in two_processes.glob("rank*.txt")) == [f"process {rank} of 2, 5 steps" for rank in (0, 1)]
    result = run(tmp_path, backend, WishesToStop(5), **STOPPED)
    assert result.steps == 5
    ranks = [load_file(str(two_processes / f"rank{rank}.safetensors")) for rank in (0, 1)]
    alone = result.adapter.state_dict()
    for key, value in ranks[0].items():
        if "importance" not in key and "moments" not in key:
            assert torch.equal(value, ranks[1][key]), key
            assert torch.allclose(value, alone[key], rtol=5e-3, atol=5e-3), key
