"""What a run refuses, how it says so, and what it leaves as it was."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import small_run
from small_run import run, zorp_data

from sparsedict.sparsedict_core.errors import TrainingError
from sparsedict.trainer import Callbacks, ConceptData, train
from sparsedict.trainer.forward import recomputed_blocks


def test_a_place_that_cannot_be_written_is_refused_before_training(tmp_path, backend, monkeypatch):
    monkeypatch.setattr(type(backend), "predict", lambda *a: pytest.fail("worked for nothing"))
    (tmp_path / "a.safetensors").write_bytes(b"mine")
    with pytest.raises(TrainingError, match="exists"):
        run(tmp_path, backend)
    assert (tmp_path / "a.safetensors").read_bytes() == b"mine"
    with pytest.raises(TrainingError, match="cannot be made"):
        run(tmp_path / "a.safetensors" / "inside", backend)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore"), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9")])
def test_out_of_memory_names_settings_to_lower(tmp_path, backend, monkeypatch, error):
    def full(*args):
        raise error

    monkeypatch.setattr(type(backend), "predict", full)
    with pytest.raises(TrainingError, match=r"out of memory.*gradient_checkpointing.*gradient_accumulation.*resolution"):
        run(tmp_path, backend)
    with pytest.raises(TrainingError, match=r"out of memory.*lower resolution") as told:
        run(tmp_path, backend, gradient_checkpointing=True, precision="bf16", batch_size=2, gradient_accumulation=2)
    assert "gradient_" not in str(told.value) and "\n" not in str(told.value)


def test_other_errors_stay_as_they_are(tmp_path, backend, monkeypatch):
    def broken(*args):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(type(backend), "predict", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(tmp_path, backend)


def test_resuming_with_other_images_or_another_base_is_refused(tmp_path, backend, monkeypatch):
    run(tmp_path, backend, steps=2)
    other = ConceptData.from_tensors([item.image * 0.5 for item in zorp_data()], [item.captions for item in zorp_data()])
    with pytest.raises(TrainingError, match="other training images"):
        train(small_run.settings(tmp_path, steps=2, resume=True), backend, other, Callbacks())
    monkeypatch.setattr(type(backend), "fingerprint", lambda self: "another")
    with pytest.raises(TrainingError, match="other base weights"):
        run(tmp_path, backend, steps=2, resume=True)


def test_recomputing_is_switched_off_again_even_after_an_error(backend):
    with pytest.raises(ZeroDivisionError), recomputed_blocks(backend, True):
        assert backend.denoiser.is_gradient_checkpointing
        raise ZeroDivisionError
    assert not backend.denoiser.is_gradient_checkpointing
