"""What a run leaves when something fails after its last step, what it can go on from, and what it closes."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent))
from small_run import run, settings, zorp_data

from sparsedict.sparsedict_core import Selection, load, prune, save, select
from sparsedict.sparsedict_core.errors import DataError, FileFormatError, TrainingError
from sparsedict.trainer import Callbacks, checkpoint, train
from sparsedict.trainer import calibrate as calibrating
from sparsedict.trainer.progress import ConsoleProgress
from sparsedict.trainer.quiet import load_or_make, quiet_prompts


class Noted(Callbacks):
    def __init__(self):
        self.warned, self.kept = [], []

    def on_warning(self, text):
        self.warned.append(text)

    def on_checkpoint(self, step, path):
        self.kept.append(step)


def same(a: Path, b: Path) -> bool:
    one, other = load_file(str(a)), load_file(str(b))
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def failing(monkeypatch, error, after=0):
    """Ranking the atoms fails after `after` batches."""
    calls, draw = [], calibrating.draw_batch

    def fail(*args):
        calls.append(args)
        if len(calls) > after:
            raise error
        return draw(*args)

    monkeypatch.setattr(calibrating, "draw_batch", fail)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), KeyboardInterrupt()])
def test_an_adapter_whose_ranking_fails_is_saved_and_ranked_by_resuming(tmp_path, backend, monkeypatch, error):
    whole = run(tmp_path / "whole", backend, steps=5)
    with monkeypatch.context() as patch:
        failing(patch, error, after=2)
        noted = Noted()
        with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else TrainingError):
            run(tmp_path, backend, noted, steps=5)
    kept = tmp_path / "a.checkpoints" / "step-000005.safetensors"
    assert len(noted.warned) == 1 and "could not be ranked" in noted.warned[0] and "a.safetensors" in noted.warned[0] and str(kept) in noted.warned[0]
    unranked = load(tmp_path / "a.safetensors")
    for key, site in unranked.sites.items():
        assert torch.equal(site.dictionary_weight, load(whole.path).sites[key].dictionary_weight)
    run(tmp_path, backend, steps=5, resume=True)
    assert same(tmp_path / "a.safetensors", whole.path)


def test_of_a_finished_run_one_checkpoint_stays_to_go_on_from(tmp_path, backend):
    noted = Noted()
    run(tmp_path, backend, noted, steps=5)
    assert noted.kept == [2, 4, 5] and [path.stem for path in (tmp_path / "a.checkpoints").iterdir()] == ["step-000005"]
    run(tmp_path / "none", backend, steps=1, keep_checkpoints=0)
    assert not (tmp_path / "none" / "a.checkpoints").exists()


def test_the_files_precision_is_the_users_and_changes_nothing_else(tmp_path, backend):
    whole = load_file(run(tmp_path, backend, steps=2, save_precision="fp32").path)
    half = load_file(run(tmp_path / "half", backend, steps=2, cache=tmp_path).path)
    key = next(key for key in whole if key.endswith("dictionary.weight"))
    assert whole[key].dtype == torch.float32 and half[key].dtype == torch.float16 and torch.equal(whole[key].half(), half[key])
    mean = next(key for key in half if key.endswith("encoder.mean"))
    assert torch.equal(half[mean], whole[mean]) and half[mean].dtype == torch.float32


def test_a_finished_run_goes_on_for_more_steps_and_says_what_that_means(tmp_path, backend):
    run(tmp_path, backend, steps=4)
    noted = Noted()
    result = run(tmp_path, backend, noted, steps=6, resume=True)
    assert [entry["step"] for entry in result.log] == [1, 2, 3, 4, 5, 6] and load(result.path).metadata["training"]["steps"] == 6
    assert len(noted.warned) == 1 and "going on to 6 steps, 4 before" in noted.warned[0]
    with pytest.raises(TrainingError, match=r"6 steps done already, more than the 5 asked for; give more steps"):
        run(tmp_path, backend, steps=5, resume=True)


def test_a_checkpoint_that_cannot_be_written_is_a_warning_and_the_run_goes_on(tmp_path, backend, monkeypatch):
    write = checkpoint.write

    def full(folder, *parts):
        if parts[5].step == 2:
            raise FileFormatError(f"{folder} was not saved, the disk is full; free some space there.")
        return write(folder, *parts)

    monkeypatch.setattr(checkpoint, "write", full)
    noted = Noted()
    assert run(tmp_path, backend, noted, steps=4).path.exists()
    assert noted.kept == [4] and "no checkpoint of step 2: " in noted.warned[0] and "disk is full" in noted.warned[0]


def test_an_adapter_that_cannot_be_saved_names_the_checkpoint_that_has_it(tmp_path, backend, monkeypatch):
    def full(adapter, out, **more):
        raise FileFormatError(f"{out} was not saved, the disk is full; free some space there, or choose another place.")

    with monkeypatch.context() as patch, pytest.raises(FileFormatError, match=r"disk is full; .*; resume then goes on from .*step-000003\.safetensors"):
        patch.setattr("sparsedict.trainer.result.save", full)
        run(tmp_path, backend, steps=3)
    assert run(tmp_path, backend, steps=3, resume=True).path.exists()


def test_a_run_that_goes_on_keeps_the_batch_that_memory_allowed_when_it_began(tmp_path, backend, monkeypatch):
    from sparsedict.cli.train import fitted
    from sparsedict.trainer import policy

    run(tmp_path, backend, steps=2, gradient_accumulation=2)
    monkeypatch.setattr(policy, "free_memory", lambda device: 1e15)
    config = settings(tmp_path, steps=2, batch_size=16, resume=True)
    on = fitted(config, backend, {"steps"})
    assert (on.batch_size, on.gradient_accumulation) == (4, 2)
    config.resume = False
    assert fitted(config, backend, {"steps"}).gradient_accumulation == 1


def test_two_runs_with_one_out_are_stopped_at_the_start(tmp_path, backend, monkeypatch):
    tried = []

    class Second(Noted):
        def on_step(self, report):
            with monkeypatch.context() as patch, pytest.raises(TrainingError, match="another run is writing its checkpoints to"):
                patch.setattr(type(backend), "predict", lambda *a: pytest.fail("worked for nothing"))
                run(tmp_path, backend, steps=2, overwrite=len(tried) > 1)  # refused for that reason also where it would be for others
            tried.append(report.step)

    assert run(tmp_path, backend, Second(), steps=4).path.exists() and tried == [1, 2, 3, 4]


def test_a_checkpoint_folder_that_cannot_be_written_to_is_noticed_before_the_first_step(tmp_path, backend, monkeypatch):
    monkeypatch.setattr(type(backend), "predict", lambda *a: pytest.fail("worked for nothing"))
    (tmp_path / "a.checkpoints").touch()
    with pytest.raises(TrainingError, match=r"no checkpoint can be written to .*a\.checkpoints"):
        run(tmp_path, backend)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to itself")
def test_ctrl_c_while_the_atoms_are_ranked_leaves_a_ranking_of_what_was_seen(tmp_path, backend):
    class Hurry(Noted):
        batches = 0

        def on_progress(self, name, done, total):
            if name == "importance":
                self.batches = done
                os.kill(os.getpid(), signal.SIGINT)

    hurry = Hurry()
    result = run(tmp_path, backend, hurry)
    assert result.steps == 6 and hurry.batches == 1 and "ranking of fewer" in hurry.warned[0]
    assert all(bool((site.importance > 0).any()) and site.moments is not None for site in load(result.path).sites.values())


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("the decoder fell over")])
def test_previews_that_fail_are_a_warning_and_change_nothing(tmp_path, backend, monkeypatch, error):
    def fail(*args):
        raise error

    plain = run(tmp_path / "plain", backend)
    monkeypatch.setattr(type(backend), "decode", fail)
    noted = Noted()
    result = run(tmp_path, backend, noted, preview_prompts=["a zorp"], preview_every=3)
    assert same(result.path, plain.path)
    assert [f"the preview of step {step} failed ({error}); the training goes on." for step in (3, 6)] == noted.warned


def test_preview_prompts_are_checked_before_any_work(tmp_path, backend, monkeypatch):
    monkeypatch.setattr(type(backend), "predict", lambda *a: pytest.fail("worked for nothing"))
    with pytest.raises(TrainingError, match=r"the preview prompt 'a xylophone' cannot be used: .*xylophone.*change it or leave it out"):
        run(tmp_path, backend, preview_prompts=["a zorp", "a xylophone"])


def test_previews_of_the_console_are_files_beside_the_adapter(tmp_path, backend):
    train(settings(tmp_path, steps=4, preview_prompts=["a zorp"], preview_every=2), backend, zorp_data())
    assert sorted(path.name for path in (tmp_path / "a.previews").iterdir()) == ["step-000002.png", "step-000004.png"]


def test_an_out_that_no_adapter_can_be_saved_at_is_refused_at_once(tmp_path, backend, monkeypatch):
    monkeypatch.setattr(type(backend), "predict", lambda *a: pytest.fail("worked for nothing"))
    with pytest.raises(TrainingError, match=r"x should end in \.safetensors"):
        run(tmp_path, backend, out=tmp_path / "x")


def test_importance_under_bf16_is_of_the_steps_own_precision(tmp_path, backend, monkeypatch):
    seen, predict = [], type(backend).predict
    monkeypatch.setattr(type(backend), "predict", lambda self, *a: seen.append(torch.is_autocast_enabled("cpu")) or predict(self, *a))
    run(tmp_path, backend, precision="bf16", steps=1, batch_size=2, quiet_samples=2)
    assert seen[-6:] == [True] * 6


# -- going on


def relabelled(path: Path, without: set[str]) -> None:
    """The checkpoint as an earlier version wrote it."""
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata()
    stored = {key: value for key, value in json.loads(metadata["config"]).items() if key not in without}
    known = {name: metadata[name] for name in ("format", "state", "optimiser")}
    save_file(load_file(str(path)), str(path), {**known, "config": json.dumps(stored)})


def test_another_dtype_of_the_base_is_no_continuation(tmp_path, backend, monkeypatch):
    run(tmp_path, backend, steps=4)
    with monkeypatch.context() as patch:
        patch.setattr(type(backend), "dtype", torch.bfloat16)
        patch.setattr("sparsedict.trainer.loop.build_sets", lambda *a: ([SimpleNamespace(concept=None)], [SimpleNamespace()]))
        patch.setattr("sparsedict.trainer.loop.measure_inputs", lambda backend, adapter, *a: adapter)
        with pytest.raises(TrainingError, match=r"made with dtype = 'torch\.float32', this run has 'torch\.bfloat16'; resume with the same"):
            run(tmp_path, backend, steps=4, resume=True)
    relabelled(tmp_path / "a.checkpoints" / "step-000004.safetensors", {"dtype", "prior_hash"})
    assert run(tmp_path, backend, steps=4, resume=True).steps == 4


def prior_folder(folder: Path, value: int) -> Path:
    from PIL import Image

    folder.mkdir()
    Image.new("RGB", (64, 64), (value, value, value)).save(folder / "1.png")
    return folder


def test_other_prior_images_are_no_continuation_wherever_they_are(tmp_path, backend):
    prior = {"prior_caption": "a flat fox", "steps": 2, "batch_size": 8}
    run(tmp_path, backend, prior_images=prior_folder(tmp_path / "one", 9), **prior)
    with pytest.raises(TrainingError, match="other prior images or captions"):
        run(tmp_path, backend, prior_images=prior_folder(tmp_path / "two", 200), resume=True, **prior)
    assert run(tmp_path, backend, prior_images=prior_folder(tmp_path / "moved", 9), resume=True, **prior).steps == 2


def test_prior_images_without_captions_ask_for_theirs(tmp_path, backend):
    with pytest.raises(DataError, match=r"no caption.*--prior-caption"):
        run(tmp_path, backend, prior_images=prior_folder(tmp_path / "one", 9), caption="a {word}")


def test_what_is_wrong_with_the_pictures_and_with_the_prior_ones_is_told_at_once(tmp_path, backend):
    pictures = prior_folder(tmp_path / "pictures", 9)
    (pictures / "2.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"2\.png.*no caption.*--prior-caption"):
        train(settings(tmp_path, images=pictures, prior_images=prior_folder(tmp_path / "one", 9), caption="a {word}"), backend)
    (pictures / "2.png").unlink()
    with pytest.raises(DataError, match=r"'hovercraft'.*[^.]; and .*'submarine'"):
        train(settings(tmp_path, images=pictures, prior_images=tmp_path / "one", caption="a hovercraft {word}", prior_caption="a submarine"), backend)


# -- what is closed and let go


def test_the_last_steps_are_in_the_tensorboard_log_also_of_a_run_that_fails(tmp_path, backend, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    failing(monkeypatch, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(TrainingError):
        train(settings(tmp_path, steps=3, tensorboard=tmp_path / "log"), backend, zorp_data())
    log = EventAccumulator(str(tmp_path / "log")).Reload()
    assert [event.step for event in log.Scalars("loss")] == [1, 2, 3]


def test_a_writer_is_closed_with_the_progress(tmp_path, monkeypatch):
    closed = []
    progress = ConsoleProgress(settings(tmp_path))
    progress._log._writer = SimpleNamespace(close=lambda: closed.append(True))
    progress.on_stage("training")
    assert not closed
    progress.close()
    assert closed


def test_cached_samples_do_not_hold_on_to_their_file(tmp_path, backend):
    """Windows deletes no file that a tensor is mapped to; here the file's bytes are changed under it."""
    config = settings(tmp_path)
    made = load_or_make(config, backend, (16, 16), tmp_path)
    cached = load_or_make(config, backend, (16, 16), tmp_path)
    path = next(tmp_path.glob("quiet-*.safetensors"))
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert torch.equal(cached.latents, made.latents)


def test_samples_of_an_fp16_base_are_others(tmp_path, backend, monkeypatch):
    config = settings(tmp_path)
    load_or_make(config, backend, (16, 16), tmp_path)
    monkeypatch.setattr(type(backend), "dtype", torch.float16)
    monkeypatch.setattr(type(backend), "sample", lambda self, captions, noise, *a, **k: noise)
    load_or_make(config, backend, (16, 16), tmp_path)
    assert len(list(tmp_path.glob("quiet-*.safetensors"))) == 2


@pytest.mark.parametrize("share", [0.0, 0.125, 0.3, 0.4, 0.7, 0.9, 1.0])
def test_the_share_of_empty_prompts_is_what_is_asked_for(tmp_path, backend, share):
    prompts = quiet_prompts(settings(tmp_path, quiet_samples=1000, quiet_empty_share=share), backend)
    assert prompts.count("") == round(1000 * share)
    if share == 0.125:
        assert all((prompt == "") == (number % 8 == 7) for number, prompt in enumerate(prompts))


def test_ctrl_c_before_the_first_step_says_that_nothing_was_written(tmp_path, backend, monkeypatch):
    def interrupted(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(backend), "sample", interrupted)
    noted = Noted()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, backend, noted)
    assert noted.warned == ["no adapter was saved; it was before the first step was done, so nothing was written."]


def test_a_run_that_cannot_go_on_is_refused_before_anything_is_sampled(tmp_path, backend, monkeypatch):
    run(tmp_path, backend, steps=2, checkpoint_every=1)
    monkeypatch.setattr(type(backend), "sample", lambda *_, **more: pytest.fail("worked for nothing"))
    monkeypatch.setattr(type(backend), "encode_images", lambda *_: pytest.fail("worked for nothing"))
    with pytest.raises(TrainingError, match="learning_rate"):
        run(tmp_path, backend, steps=2, resume=True, learning_rate=0.3, quiet_samples=6)
    with pytest.raises(TrainingError, match="more than the 1 asked for"):
        run(tmp_path, backend, steps=1, resume=True)
    adapter = load(tmp_path / "a.safetensors")
    save(prune(adapter, select(adapter, Selection(top=1))), tmp_path / "a.safetensors", overwrite=True)
    with pytest.raises(TrainingError, match="was not written by the run of"):
        run(tmp_path, backend, steps=2, resume=True)


def test_a_run_that_goes_on_reads_its_checkpoint_before_the_sampling_and_after_it_and_no_more(tmp_path, backend, monkeypatch):
    run(tmp_path, backend, steps=2)
    read, opened = checkpoint.read_regular, []
    monkeypatch.setattr(checkpoint, "read_regular", lambda path: opened.append(path.name) or read(path))
    run(tmp_path, backend, steps=3, resume=True)
    assert opened == ["step-000002.safetensors"] * 2


def test_a_run_that_goes_on_and_may_overwrite_does_both(tmp_path, backend):
    run(tmp_path, backend, steps=2)
    (tmp_path / "a.safetensors").write_bytes(b"another's")
    noted = Noted()
    result = run(tmp_path, backend, noted, steps=4, resume=True, overwrite=True)
    assert load(result.path).metadata["training"]["steps"] == 4 and "going on to 4 steps, 2 before" in noted.warned[0] and noted.kept == [4]
