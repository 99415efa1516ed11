"""Which device a command opens its model on, and that the commands that heal take train's options for a batch that is too large."""

import pytest
import torch

from sparsedict.cli import common
from sparsedict.sparsedict_core import load
from sparsedict.trainer import backends


@pytest.fixture
def opened_on(monkeypatch):
    """The device that `open_model` asks for, on a machine with GPUs."""

    def call(device, **environment):
        seen = []
        for name in ("WORLD_SIZE", "LOCAL_RANK"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(common, "check_device", lambda device: None)
        monkeypatch.setattr(backends, "open_backend", lambda model, device, dtype, *more: seen.append((str(device), dtype)))
        common.open_model("demo", device, None)
        return seen[0][0]

    monkeypatch.setattr(common, "computes_bf16", lambda device: False)
    return call


@pytest.mark.parametrize("computes", [True, False])
def test_bf16_is_the_default_where_the_gpu_computes_it(monkeypatch, computes):
    seen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or computes)
    monkeypatch.setattr(common, "check_device", lambda device: None)
    monkeypatch.setattr(backends, "open_backend", lambda model, device, dtype, *more: seen.append((device.type, dtype)))
    for device in ("cuda", "cpu"):
        common.open_model("demo", device, None)
    assert seen == [("cuda", torch.bfloat16 if computes else torch.float32), ("cpu", torch.float32)]


@pytest.mark.parametrize("device", [None, "cuda"])
def test_each_process_has_a_gpu_of_its_own(opened_on, device):
    assert opened_on(device, WORLD_SIZE="2", LOCAL_RANK="1") == "cuda:1"
    assert opened_on(device, WORLD_SIZE="2", LOCAL_RANK="0") == "cuda:0"
    assert opened_on(device) == "cuda"


def test_a_device_that_was_named_is_taken(opened_on):
    assert opened_on("cuda:3", WORLD_SIZE="2", LOCAL_RANK="1") == "cuda:3"
    assert opened_on("cpu", WORLD_SIZE="2", LOCAL_RANK="1") == "cpu"


@pytest.mark.parametrize("device", ["mps", "cuda", "meta", "xpu:3"])
def test_a_device_that_is_not_there_is_refused_before_a_model_is_read(refused, adapter_file, tmp_path, device):
    if device in ("mps", "cuda") and getattr(torch, device).is_available():
        pytest.skip("it is there")
    assert "--device cpu" in refused("sweep", adapter_file, "a prompt", "--model", "nothing/here", "--device", device, "--out", tmp_path / "a.png")


def test_the_reason_is_a_whole_sentence(refused, adapter_file, tmp_path, monkeypatch):
    reason = "The MPS backend is supported on MacOS 14.0+" + " and on what comes after it" * 3
    monkeypatch.setattr(torch, "empty", lambda *_, **more: fail_with(f"{reason}. Current OS version can be queried using `sw_vers`"))
    said = refused("sweep", adapter_file, "a prompt", "--device", "meta", "--out", tmp_path / "a.png")
    assert f"({reason}); use --device cpu" in said


def fail_with(text):
    raise RuntimeError(text)


LESS = ("--batch-size", 4, "--gradient-accumulation-steps", 2, "--gradient-checkpointing")


@pytest.mark.parametrize("command", ["shrink", "compose"])
def test_healing_takes_the_options_of_training(cli, adapter_file, tmp_path, monkeypatch, command):
    seen = []

    def note(adapters, model, *more, batch, **named):
        seen.append((batch.batch_size, batch.gradient_accumulation, batch.gradient_checkpointing))
        raise SystemExit

    monkeypatch.setattr(f"sparsedict.cli.{command}.open_model", lambda *_: None)
    monkeypatch.setattr("sparsedict.trainer.shrink.shrink", note)
    monkeypatch.setattr("sparsedict.trainer.merge.merge", note)
    arguments = ("shrink", adapter_file, "--to", "50%") if command == "shrink" else ("compose", adapter_file, f"other={adapter_file}", "--heal")
    for more in ((), LESS):
        with pytest.raises(SystemExit):
            cli(*arguments, *more, "--out", tmp_path / "out.safetensors")
    assert seen == [(16, 1, False), (4, 2, True)] and load(adapter_file).atom_count == 48


def test_a_batch_that_cannot_be_parted_so_is_refused(refused, adapter_file, tmp_path):
    options = ("--batch-size", 3, "--gradient-accumulation-steps", 2, "--out", tmp_path / "out.safetensors")
    assert "no multiple" in refused("shrink", adapter_file, "--to", "50%", *options)
    assert "no multiple" in refused("compose", adapter_file, f"other={adapter_file}", "--heal", *options)
