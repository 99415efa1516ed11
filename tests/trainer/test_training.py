"""A run on the embedded base: what it leaves when it ends, is stopped, is killed, goes wrong; and that settings do what they say."""

import os
import shutil
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_base import small_base
from toy_adapters import toy_adapter

sys.path.insert(0, str(Path(__file__).parent))
import small_run
from small_run import run, settings

from sparsedict.pictures import save_image, to_image
from sparsedict.sparsedict_core import Selection, load, prune, select
from sparsedict.sparsedict_core.errors import SparseDictError, TrainingError
from sparsedict.sparsedict_core.file_format import save
from sparsedict.trainer import PRESETS, Callbacks, TrainConfig
from sparsedict.trainer.schedules import lr_factor, quiet_weight, target_density
from sparsedict.trainer.shrink import shrink, size_of
from sparsedict.trainer.training_sets import pictures_of

PROGRAM = Path(small_run.__file__)


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    return load_file(str(path))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], tolerance: float) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[k].float(), b[k].float(), atol=tolerance, rtol=tolerance) for k in a)


def test_a_run_ends_in_a_file_that_loads_and_prunes(tmp_path, demo):
    backend = demo
    before = {k: v.clone() for k, v in backend.denoiser.state_dict().items()}
    result = run(tmp_path, backend, steps=20)
    assert sum(e["loss"] for e in result.log[-5:]) < sum(e["loss"] for e in result.log[:5])
    adapter = load(result.path)
    assert adapter.metadata["trigger_words"] == ["zorp"] and adapter.metadata["training"]["steps"] == 20
    assert all(bool((site.importance > 0).any()) for site in adapter.sites.values())
    assert all(torch.equal(site.firing > 0, site.importance > 0) and float(site.firing.max()) <= 1 for site in adapter.sites.values())
    kept = select(adapter, Selection(keep=0.25, order="greedy"), refit=True)
    assert kept.energy_kept > 0.5 and prune(adapter, kept, refit=True).atom_count == kept.kept
    assert all(torch.equal(before[k], v) for k, v in backend.denoiser.state_dict().items())
    assert not any(m._forward_hooks for m in backend.denoiser.modules())


def test_the_same_seed_gives_the_same_file(tmp_path, backend):
    first, second = run(tmp_path / "1", backend), run(tmp_path / "2", backend)
    assert same(tensors_of(first.path), tensors_of(second.path))
    assert not same(tensors_of(first.path), tensors_of(run(tmp_path / "3", backend, seed=1).path))


def test_killed_and_resumed_is_bit_for_bit_an_unbroken_run(tmp_path, backend):
    killed = subprocess.Popen([sys.executable, str(PROGRAM), str(tmp_path / "killed"), "9"], stdout=subprocess.PIPE, text=True)
    for line in killed.stdout:
        if line.startswith("step 5"):
            killed.send_signal(signal.SIGKILL)
            break
    killed.wait()
    assert not (tmp_path / "killed" / "a.safetensors").exists()
    steps = []

    class Note(Callbacks):
        def on_step(self, report):
            steps.append(report.step)

    run(tmp_path / "killed", backend, Note(), steps=9, resume=True)
    run(tmp_path / "whole", backend, steps=9)
    assert steps[0] in (3, 5) and steps[-1] == 9
    assert same(tensors_of(tmp_path / "whole" / "a.safetensors"), tensors_of(tmp_path / "killed" / "a.safetensors"))


@pytest.mark.skipif(os.name != "posix", reason="sends a signal to a process")
def test_a_signal_leaves_an_adapter_and_says_where(tmp_path):
    """A terminal that goes away; what is noted of each signal: test_stopping.py, and Ctrl-C in the steps: below."""
    def heeds_it():
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup

    program = subprocess.Popen([sys.executable, str(PROGRAM), str(tmp_path), "500"], stdout=subprocess.PIPE, text=True, preexec_fn=heeds_it)
    for line in program.stdout:
        if line.startswith("step 3"):
            program.send_signal(signal.SIGHUP)
            break
    said = program.stdout.read()
    assert program.wait() == 0 and "stopped after" in said and "a.safetensors" in said and "step-0000" in said and f"signal {signal.SIGHUP.value}\n" in said
    assert load(tmp_path / "a.safetensors").metadata["training"]["steps"] < 500


@pytest.mark.skipif(os.name != "posix", reason="sends a signal to itself")
def test_ctrl_c_ends_the_steps_with_an_adapter_and_a_checkpoint(tmp_path, backend):
    told = []

    class Interrupted(Callbacks):
        def on_step(self, report):
            if report.step == 3:
                os.kill(os.getpid(), signal.SIGINT)

        def on_stopped(self, step, steps, path, checkpoint):
            told.append((step, steps, path, checkpoint))

    result = run(tmp_path, backend, Interrupted(), steps=500)
    assert told == [(3, 500, tmp_path / "a.safetensors", tmp_path / "a.checkpoints" / "step-000003.safetensors")] and told[0][3].exists()
    assert result.signal == signal.SIGINT and load(result.path).metadata["training"]["steps"] == 3


def test_should_stop_ends_with_a_checkpoint(tmp_path, backend):
    result = run(tmp_path, backend, StopAfter(2))
    assert result.steps == 2 and result.checkpoint.exists() and load(result.path).atom_count == 24 * len(load(result.path).sites)
    resumed = run(tmp_path, backend, resume=True)
    assert same(tensors_of(resumed.path), tensors_of(run(tmp_path / "whole", backend).path))


class StopAfter(Callbacks):
    """Stops once a step was told, and `more` questions later."""

    def __init__(self, steps, more=0):
        self.left, self.more, self.asked = steps, more, 0

    def on_step(self, report):
        self.left -= 1

    def should_stop(self):
        self.asked += 1
        if self.left > 0:
            return False
        self.more -= 1
        return self.more < 0


def test_a_step_that_is_given_up_leaves_no_trace(tmp_path, backend):
    """Stopped at the third site of a forward, with dead atoms counted and rows drawn: going on is as if nothing had been."""
    result = run(tmp_path, backend, StopAfter(2, more=3))
    assert result.steps == 2 and result.checkpoint.name == "step-000002.safetensors"
    resumed = run(tmp_path, backend, resume=True)
    assert same(tensors_of(resumed.path), tensors_of(run(tmp_path / "whole", backend).path))


def test_stopping_before_the_first_step_writes_nothing_and_says_so(tmp_path, backend):
    """While the quiet samples are made, between the sampler's steps."""
    stop = StopAfter(0)
    with pytest.raises(TrainingError, match="before the first step was done"):
        run(tmp_path, backend, stop, quiet_sampling_steps=3)
    assert stop.asked == 1 and not list(tmp_path.rglob("*.safetensors"))


def test_without_quiet_samples_each_row_is_measured_with_its_own_caption(tmp_path, backend, monkeypatch):
    asked = []
    encode = type(backend).encode_captions
    monkeypatch.setattr(type(backend), "encode_captions", lambda self, captions: asked.append(captions) or encode(self, captions))
    run(tmp_path, backend, quiet_samples=0, steps=1)
    assert len(set(asked[-1])) == 3


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path, backend, monkeypatch):
    predict = type(backend).predict
    calls = []

    def poisoned(self, noisy, levels, conditioning):
        calls.append(torch.is_grad_enabled())
        out = predict(self, noisy, levels, conditioning)
        return out * float("nan") if calls.count(True) == 5 else out  # the first is the trial step

    monkeypatch.setattr(type(backend), "predict", poisoned)
    with pytest.raises(TrainingError, match=r"not finite at step 4 .*step-000002"):
        run(tmp_path, backend)
    assert (tmp_path / "a.checkpoints" / "step-000002.safetensors").exists() and not (tmp_path / "a.safetensors").exists()


def test_resuming_with_other_settings_is_refused(tmp_path, backend):
    run(tmp_path, backend)
    with pytest.raises(TrainingError, match="learning_rate"):
        run(tmp_path, backend, resume=True, learning_rate=1e-4)


def test_a_damaged_checkpoint_is_named(tmp_path, backend):
    run(tmp_path, backend)
    newest = sorted((tmp_path / "a.checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:200])
    with pytest.raises(TrainingError, match=newest.name):
        run(tmp_path, backend, resume=True)


def test_a_new_run_keeps_its_own_checkpoints_beside_those_of_the_run_that_it_overwrites(tmp_path, backend):
    run(tmp_path, backend)
    folder = tmp_path / "a.checkpoints"
    assert [path.stem for path in folder.iterdir()] == ["step-000006"]
    stopped = run(tmp_path, backend, StopAfter(2), overwrite=True, seed=1)
    assert stopped.checkpoint.exists() and [path.stem for path in folder.iterdir()] == ["step-000002"]
    assert run(tmp_path, backend, resume=True, seed=1).steps == 6


def test_what_another_run_has_left_is_neither_overwritten_nor_deleted_unasked(tmp_path, backend):
    run(tmp_path, backend)
    out, folder = tmp_path / "a.safetensors", tmp_path / "a.checkpoints"
    kept = sorted(folder.iterdir())
    out.unlink()
    with pytest.raises(TrainingError, match=r"step-000006.* is left of an earlier run; go on from it with resume"):
        run(tmp_path, backend)
    assert sorted(folder.iterdir()) == kept and not out.exists()


def test_resume_replaces_no_file_that_its_run_did_not_begin(tmp_path, backend):
    whole, other = run(tmp_path, backend, steps=2).path, run(tmp_path / "other", backend, steps=2, seed=1).path
    adapter = load(whole)
    for changed in (load(other), prune(adapter, select(adapter, Selection(top=5)))):
        save(changed, whole, overwrite=True)
        before = whole.read_bytes()
        with pytest.raises(TrainingError, match=r"a\.safetensors was not written by the run of .*step-000002.*move it elsewhere"):
            run(tmp_path, backend, steps=2, resume=True)
        assert whole.read_bytes() == before
    shutil.rmtree(tmp_path / "a.checkpoints")
    with pytest.raises(TrainingError, match=r"a\.safetensors exists, and there is no checkpoint in .*a\.checkpoints to go on from"):
        run(tmp_path, backend, steps=2, resume=True)
    assert whole.read_bytes() == before
    run(tmp_path, backend, steps=2, resume=True, overwrite=True)
    assert load(whole).atom_count == adapter.atom_count


def test_quiet_samples_are_made_once(tmp_path, backend, monkeypatch):
    run(tmp_path, backend)
    monkeypatch.setattr(type(backend), "sample", lambda *a, **k: pytest.fail("sampled again"))
    run(tmp_path, backend, overwrite=True)


def test_the_quiet_term_quietens(tmp_path, demo):
    def late_ratio(weight):
        # One step's ratio is noisy: few rows, and another noise level each time.
        log = run(tmp_path / str(weight), demo, steps=40, quiet_weight=weight, quiet_ramp=(0.0, 0.1)).log
        return statistics.median(entry["quiet_ratio"] for entry in log[-15:])

    assert late_ratio(3.0) < 0.8 * late_ratio(1e-9)


def test_without_quiet_samples_it_warns_and_trains(tmp_path, backend):
    warned = []

    class Note(Callbacks):
        def on_warning(self, text):
            warned.append(text)

    assert run(tmp_path, backend, Note(), quiet_samples=0).path.exists() and "no quiet samples" in warned[0]


def test_gradient_checkpointing_changes_nothing(tmp_path, backend):
    plain = run(tmp_path / "plain", backend, nested=0.5, steps=4)
    saving = run(tmp_path / "saving", backend, nested=0.5, steps=4, gradient_checkpointing=True)
    assert close(tensors_of(plain.path), tensors_of(saving.path), 2e-3)


def test_gradient_accumulation_is_the_same_batch(tmp_path, backend):
    # The quiet term's denominators are of the rows seen so far (test_losses.py), so it is left out here.
    plain, parts = (run(tmp_path / str(n), backend, batch_size=8, quiet_weight=0.0, steps=4, gradient_accumulation=n) for n in (1, 4))
    assert close(tensors_of(plain.path), tensors_of(parts.path), 2e-3)
    assert [e["loss"] for e in plain.log] == pytest.approx([e["loss"] for e in parts.log], rel=1e-4)


def test_bf16_trains(tmp_path, backend):
    result = run(tmp_path, backend, precision="bf16", steps=2, batch_size=2)
    assert all(torch.isfinite(v).all() for v in tensors_of(result.path).values())


@pytest.mark.parametrize("more", [{"encoder": "soft", "rank": None}, {"encoder": "linear"}], ids=["the paper's reading", "as a LoRA"])
def test_other_encoders_train(tmp_path, backend, more):
    result = run(tmp_path, backend, steps=3, **more)
    assert result.path.exists() and {site.threshold.item() for site in result.adapter.sites.values()} == {1.0 if more["encoder"] == "soft" else 0.0}


def test_an_fp16_base_is_refused_with_the_way_out(tmp_path, backend, monkeypatch):
    adapter = run(tmp_path / "whole", backend, steps=1).adapter
    monkeypatch.setattr(type(backend), "dtype", torch.float16)
    monkeypatch.setattr(type(backend), "predict", lambda *a: pytest.fail("worked for nothing"))
    for call in (lambda: run(tmp_path, backend), lambda: shrink(adapter, backend, 0.5, data=small_run.zorp_data(), callbacks=Callbacks())):
        with pytest.raises(TrainingError, match="fp16, in which gradients vanish; load it in bf16 or fp32"):
            call()


def test_an_encoder_that_is_gone_is_named(tmp_path, backend):
    with pytest.raises(SparseDictError, match=r"jumprelu.* version 0\.1\.0.*quantile"):
        run(tmp_path, backend, encoder="jumprelu")


def test_previews_are_of_the_same_noise_as_the_bases(tmp_path, backend):
    seen = []

    class Note(Callbacks):
        def on_preview(self, step, prompts, images, base_images):
            seen.append((step, images, base_images))

    run(tmp_path, backend, Note(), preview_prompts=["a zorp"], preview_every=3)
    assert [step for step, _, _ in seen] == [3, 6] and torch.equal(seen[0][2], seen[1][2]) and not torch.equal(seen[0][1], seen[0][2])


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_train(tmp_path, backend, preset):
    assert run(tmp_path, backend, **{**PRESETS[preset], "steps": 2}).path.exists()


def test_shrink_makes_a_tenth_and_says_what_it_keeps(tmp_path, backend):
    adapter = load(run(tmp_path, backend, steps=12, atoms=128, rank=16).path)
    result = shrink(adapter, backend, 0.12, data=small_run.zorp_data(), heal_steps=2, callbacks=Callbacks())
    assert result.size <= 0.12 * size_of(adapter) and "keeps" in result.text and result.adapter.atom_count > 0
    # Pictures without captions of their own, as `train --word --caption` reads them.
    for number, item in enumerate(small_run.zorp_data()):
        save_image(to_image(item.image), tmp_path / f"{number}.png")
    result = shrink(adapter, backend, 0.12, images=tmp_path, heal_steps=0, callbacks=Callbacks(), unit="parameters")
    assert 0 < result.size == result.adapter.parameter_count() <= 0.12 * adapter.parameter_count()


@pytest.mark.parametrize(
    ("training", "wanted"),
    [
        ({"caption": "a {word} in the center"}, "a zorp in the center"),
        ({"caption": None, "captions": ["a small zorp"]}, "a small zorp"),
        ({"caption": None, "captions": ["a small zorp", "a large zorp"]}, "a zorp"),  # the base's default
        ("no table", "a zorp"),
    ],
)
def test_pictures_are_read_as_the_training_read_them(tmp_path, backend, training, wanted):
    save_image(to_image(small_run.zorp_data()[0].image), tmp_path / "1.png")
    adapter = toy_adapter()
    adapter.metadata["training"] = training
    assert pictures_of(adapter, tmp_path, backend)[0].captions == [wanted]


def test_shrinking_orders_once_and_writes_nothing(tmp_path, demo, monkeypatch):
    from sparsedict.sparsedict_core import file_format, folding, selection

    adapter = run(tmp_path, demo, steps=4).adapter
    calls = []

    def counted(module, name):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args: calls.append(name) or function(*args))

    counted(selection, "greedy_order")
    counted(folding, "_candidates")
    counted(folding, "_ridge")
    counted(file_format, "write_atomically")
    shrink(adapter, demo, 0.2, data=small_run.zorp_data(), heal_steps=0, callbacks=Callbacks())
    sites = len(adapter.sites)
    assert calls.count("greedy_order") == 1 and calls.count("_candidates") == sites and "write_atomically" not in calls
    assert calls.count("_ridge") <= 2 * sites  # and not at every size that is looked at


def test_schedules():
    config = TrainConfig(steps=100)
    assert target_density(config, 0) == 1 and target_density(config, 50) == pytest.approx(0.1) == target_density(config, 99)
    assert quiet_weight(config, 14) == 0 and quiet_weight(config, 45) == pytest.approx(config.quiet_weight)
    assert lr_factor(config, 0) == 1 / 20 and lr_factor(config, 60) == 1 and lr_factor(config, 99) == pytest.approx(1 / 30)
    with pytest.raises(TrainingError, match="lr_schedule is 'steps'; give linear or cosine or constant"):
        TrainConfig(lr_schedule="steps")


@pytest.mark.parametrize(("name", "value"), [("steps", 0), ("nested", 1.5), ("precision", "fp8"), ("batch_size", 0)])
def test_bad_settings_are_named(tmp_path, name, value):
    with pytest.raises(TrainingError, match=name):
        settings(tmp_path, **{name: value})


def test_a_run_whose_statistics_no_fp16_holds_is_saved_and_loaded(tmp_path):
    """One site's inputs lie around 200,000, another's are a billionth of what they were: fp16 ends at 65,504 and at 6e-8."""
    backend = small_base()
    first, second = list(run(tmp_path / "plain", backend, steps=1).adapter.sites)[:2]
    modules = dict(backend.denoiser.named_modules())
    for key, change in ((first, lambda x: x + 2e5), (second, lambda x: x * 1e-9)):
        module = modules[key.removeprefix("transformer.")]
        module.register_forward_pre_hook(lambda module, args, change=change: (change(args[0]), *args[1:]))
        # The model goes on from what it would have made.
        own = module.forward
        module.forward = lambda x, own=own, change=change: own(x - 2e5 if change(torch.zeros(())) > 0 else x * 1e9)
    result = run(tmp_path, backend, steps=3)
    loaded = load(result.path)
    assert loaded.sites[first].encoder_mean.abs().max() > 65_504 and 0 < loaded.sites[second].encoder_scale.max() < 6e-8
    for key, site in result.adapter.sites.items():
        assert torch.equal(loaded.sites[key].encoder_mean, site.encoder_mean.cpu()) and torch.equal(loaded.sites[key].encoder_scale, site.encoder_scale.cpu())
