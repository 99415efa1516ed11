"""What users of other trainers expect to choose: Prodigy, averages of the steps, noise levels. Each goes on bit for bit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from small_run import run, settings
from tiny_pipelines import save_tiny

from sparsedict.sparsedict_core.errors import TrainingError
from sparsedict.trainer import Callbacks, TrainConfig, checkpoint
from sparsedict.trainer.backends import open_backend
from sparsedict.trainer.backends.flow import shifted
from sparsedict.trainer.noise_levels import draw_levels
from sparsedict.trainer.progress import ConsoleProgress


class StopAfter(Callbacks):
    def __init__(self, step):
        self.step, self.at = 0, step

    def on_step(self, report):
        self.step = report.step

    def should_stop(self):
        return self.step >= self.at


def tensors(result):
    return {**{f"{key}.{name}": value for key, site in result.adapter.sites.items() for name, value in site.state_dict().items()}}


def equal(one, other):
    one, other = tensors(one), tensors(other)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "chosen", [{"optimizer": "prodigy"}, {"ema_decay": 0.9}, {"timestep_sampling": "uniform", "timestep_shift": 2.0}], ids=["prodigy", "average", "levels"]
)
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, backend, chosen):
    if "optimizer" in chosen:
        pytest.importorskip("prodigyopt")
    whole = run(tmp_path / "whole", backend, steps=8, **chosen)
    run(tmp_path / "parts", backend, StopAfter(5), steps=8, **chosen)
    assert equal(run(tmp_path / "parts", backend, steps=8, resume=True, **chosen), whole)


def test_prodigy_goes_by_a_rate_of_one_and_the_checkpoint_keeps_what_it_found(tmp_path, backend):
    pytest.importorskip("prodigyopt")
    assert TrainConfig(optimizer="prodigy").rate == 1.0 and TrainConfig(optimizer="prodigy", learning_rate=0.5).rate == 0.5
    run(tmp_path, backend, steps=8, optimizer="prodigy")
    groups = checkpoint._opened(checkpoint.newest(tmp_path / "a.checkpoints"))[1]["groups"]
    assert groups[0]["k"] == 8 and groups[0]["d"] > 0 and groups[0]["d_numerator"] != 0


def test_a_package_that_is_missing_is_named(tmp_path, backend, monkeypatch):
    monkeypatch.setitem(sys.modules, "prodigyopt", None)
    with pytest.raises(TrainingError, match="pip install prodigyopt"):
        run(tmp_path, backend, optimizer="prodigy")
    monkeypatch.setattr("accelerate.utils.is_wandb_available", lambda: False)
    with pytest.raises(TrainingError, match="pip install wandb"):
        ConsoleProgress(TrainConfig(out=tmp_path / "b.safetensors", wandb="project"))


def test_the_average_is_what_is_saved_and_shown_and_the_steps_go_on_from_their_own(tmp_path, backend):
    shown = []

    class Note(Callbacks):
        def on_preview(self, step, prompts, images, base_images):
            shown.append(images)

    averaged = run(tmp_path / "a", backend, Note(), steps=6, ema_decay=0.5, preview_prompts=["a zorp"], preview_every=6)
    last = run(tmp_path / "b", backend, Note(), steps=6, preview_prompts=["a zorp"], preview_every=6)
    assert [entry["loss"] for entry in averaged.log] == [entry["loss"] for entry in last.log]
    assert not torch.equal(*shown) and not equal(averaged, last)
    kept = checkpoint._opened(checkpoint.newest(tmp_path / "a" / "a.checkpoints"))[0]
    own, mean = kept["adapter._site_modules.0.dictionary_weight"], kept["average._site_modules.0.dictionary_weight"]
    assert torch.equal(own, checkpoint._opened(checkpoint.newest(tmp_path / "b" / "a.checkpoints"))[0]["adapter._site_modules.0.dictionary_weight"])
    assert torch.equal(next(iter(averaged.adapter.sites.values())).dictionary_weight, mean) and not torch.equal(own, mean)


def test_levels_are_the_familys_unless_others_are_asked_for(backend):
    def drawn(**settings):
        return draw_levels(TrainConfig(**settings), backend, 20_000, torch.Generator().manual_seed(0), (16, 16))

    assert torch.equal(drawn(), backend.sample_noise_levels(20_000, torch.Generator().manual_seed(0), (16, 16)))
    uniform = drawn(timestep_sampling="uniform")
    assert abs(float(uniform.mean()) - 0.5) < 0.01 and abs(float(uniform.quantile(0.1)) - 0.1) < 0.01
    torch.testing.assert_close(drawn(timestep_sampling="uniform", timestep_shift=3.0), shifted(uniform, 3.0), rtol=0, atol=1e-3)
    assert float(shifted(torch.tensor([0.5]), 3.0)) == 0.75
    assert torch.equal(drawn(timestep_shift=1.0), drawn())


@pytest.mark.parametrize("name", ["sdxl", "flux"])
def test_levels_of_the_families_are_in_their_own_unit_and_shift(tmp_path, name):
    backend, times, size = open_backend(save_tiny(name, tmp_path)), torch.linspace(0, 1, 101), (16, 16)
    plain, shifted_more = (backend.levels_at(times, size, shift).float() for shift in (1.0, 3.0))
    most = 1000 if name == "sdxl" else 1
    assert plain.min() >= 0 and plain.max() < most and bool((plain.diff() >= 0).all()) and bool((shifted_more >= plain).all())
    assert abs(float(shifted_more[50]) / most - 0.75) < 0.01
    if name == "flux":  # whose shift goes by resolution
        own = [backend.levels_at(times[50:51], size) for size in ((4, 4), (16, 16))]
        assert 0.5 < float(own[0]) < float(own[1])


def test_a_run_is_logged_for_weights_and_biases(tmp_path, backend, monkeypatch):
    pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    more = {"wandb": "zorps", "preview_prompts": ["a zorp"], "preview_every": 6}
    run(tmp_path, backend, ConsoleProgress(settings(tmp_path, **more)), **more)
    (kept,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert all(word in kept.read_bytes() for word in (b"smoothed_loss", b"learning_rate", b"preview/a zorp"))
