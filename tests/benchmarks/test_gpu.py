"""The script for a GPU runs through without one, and says what it left out."""

from __future__ import annotations

import torch

from sparsedict.benchmarks import gpu


def test_it_runs_on_a_cpu_and_says_what_it_skipped(capsys, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main(["--no-tests"])
    lines = capsys.readouterr().out.splitlines()
    assert "no GPU here" in lines[0] and lines[1] == "tests: skipped, as asked" and lines[-1] == "CUDA graph: skipped (no GPU)"
    assert sum("step of a tiny U-Net" in line for line in lines) == 2 and sum("memory not measured" in line for line in lines) == 2
    errors = [float(line.rpartition(" ")[2]) for line in lines if "off by" in line]
    assert len(errors) == 2 and all(error < 1e-4 for error in errors)
