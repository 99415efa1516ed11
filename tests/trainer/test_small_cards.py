"""What a small card needs: no more rows at once outside the steps than in them, no whole ΔO kept, samples of tokens; by the numbers
that go through the model and the tensors that stay, as a test has no small card."""

from __future__ import annotations

import gc
import sys
import weakref
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import small_run
from small_run import run, zorp_data

from sparsedict.sparsedict_core.attachment import Attachment
from sparsedict.sparsedict_core.errors import TrainingError
from sparsedict.trainer import Callbacks, TrainConfig, step
from sparsedict.trainer import shrink as shrinking
from sparsedict.trainer.merge import Part, merge
from sparsedict.trainer.shrink import TOKENS, collected, few_tokens, shrink, training_sets


@pytest.fixture(scope="module")
def adapter(backend, tmp_path_factory):
    return run(tmp_path_factory.mktemp("a"), backend, steps=10, learning_rate=2e-2).adapter


@pytest.fixture
def rows(backend, monkeypatch):
    """How many rows each call of the denoiser and of the decoder had."""
    seen = {"predict": [], "sample": [], "decode": []}
    kind = type(backend)
    predict, sample, decode = kind.predict, kind.sample, kind.decode
    monkeypatch.setattr(kind, "predict", lambda self, noisy, *more: seen["predict"].append(len(noisy)) or predict(self, noisy, *more))
    monkeypatch.setattr(kind, "sample", lambda self, captions, *more, **named: seen["sample"].append(len(captions)) or sample(self, captions, *more, **named))
    monkeypatch.setattr(kind, "decode", lambda self, latents: seen["decode"].append(len(latents)) or decode(self, latents))
    return seen


def test_a_run_whose_steps_take_one_row_takes_one_row_everywhere(tmp_path, backend, rows):
    run(tmp_path, backend, steps=2, gradient_accumulation=4, preview_prompts=["a zorp", "a flat fox"], preview_every=2)
    # The demo's sampler calls its own pipeline, with guidance two rows a picture.
    assert set(rows["predict"]) == {1} and set(rows["sample"]) == {1} and set(rows["decode"]) == {1}


def test_samples_and_statistics_are_the_same_in_parts(tmp_path, backend):
    def statistics(accumulation):
        result = run(tmp_path / str(accumulation), backend, steps=1, batch_size=16, quiet_samples=20, gradient_accumulation=accumulation)
        return [value for site in result.adapter.sites.values() for value in (site.encoder_mean, site.encoder_scale, site.importance)]

    for whole, parts in zip(statistics(1), statistics(16), strict=True):
        assert torch.allclose(whole, parts, rtol=2e-3, atol=1e-4)


def test_healing_in_parts_with_recomputed_blocks_is_the_same_healing(backend, adapter, rows):
    def healed(batch):
        return shrink(adapter, backend, 0.7, data=zorp_data(), heal_steps=3, callbacks=Callbacks(), batch=batch)

    whole = healed(TrainConfig(batch_size=4))
    rows["predict"].clear()
    parts = healed(TrainConfig(batch_size=4, gradient_accumulation=4, gradient_checkpointing=True))
    assert set(rows["predict"]) == {1} and parts.method == whole.method and parts.error == pytest.approx(whole.error, rel=0.05)
    for one, other in zip(whole.adapter.state_dict().values(), parts.adapter.state_dict().values(), strict=True):
        assert torch.allclose(one.float(), other.float(), rtol=2e-2, atol=2e-3)
    assert not backend.denoiser.is_gradient_checkpointing


def test_a_merge_is_healed_in_parts_too(backend, adapter, rows):
    parts = [Part(word, adapter, captions=[f"a {word} in the center on a night background"]) for word in ("zorp", "quax")]

    def healed(batch):
        return merge(parts, backend, 2, Callbacks(), pictures=3, quiet_samples=4, batch=batch)

    whole = healed(TrainConfig(batch_size=4))
    rows["predict"].clear()
    rows["sample"].clear()
    other = healed(TrainConfig(batch_size=4, gradient_accumulation=4, gradient_checkpointing=True))
    assert set(rows["predict"]) == {1} and set(rows["sample"]) == {1}
    for one, two in zip(whole.trainable_parameters(), other.trainable_parameters(), strict=True):
        assert torch.allclose(one[1], two[1], rtol=2e-2, atol=2e-3), one[0]


@pytest.mark.parametrize("heal", ["shrink", "merge"])
def test_out_of_memory_in_healing_names_what_can_be_set_there(backend, adapter, monkeypatch, heal):
    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(type(backend), "predict", full)
    with pytest.raises(TrainingError, match=r"out of memory.*gradient_checkpointing.*gradient_accumulation.*dtype") as told:
        if heal == "shrink":
            shrink(adapter, backend, 0.3, data=zorp_data(), callbacks=Callbacks())
        else:
            merge([Part("a", adapter), Part("b", adapter)], backend, 2, Callbacks(), pictures=2, quiet_samples=2)
    assert "resolution" not in str(told.value) and "heckpoints that" not in str(told.value)


def test_of_large_pictures_folding_sees_some_tokens_of_each_row(backend, adapter, tmp_path, monkeypatch):
    config = small_run.settings(tmp_path)
    sets = training_sets(config, backend, adapter, zorp_data(), Callbacks())
    whole = collected(adapter, backend, config, sets)
    monkeypatch.setattr(shrinking, "TOKENS", 20)
    few, again = collected(adapter, backend, config, sets), collected(adapter, backend, config, sets)
    for key, sample in few.items():
        assert torch.equal(sample.x, again[key].x) and len(sample.x) == len(sample.update)
        tokens = len(whole[key].x) // (shrinking.SAMPLE_BATCHES * 3)
        assert len(sample.x) == shrinking.SAMPLE_BATCHES * 3 * min(20, tokens)
        places = {tuple(row) for row in whole[key].x.tolist()}
        assert all(tuple(row) in places for row in sample.x.tolist())


def test_a_few_tokens_are_the_same_ones_of_each_value_and_others_of_each_row():
    x = torch.arange(3 * 200).view(3, 10, 20, 1).float()
    chosen, doubled = few_tokens([x, x.expand(-1, -1, -1, 2) * 2], torch.Generator().manual_seed(0))
    assert chosen.shape == (3, TOKENS, 1) and torch.equal(chosen * 2, doubled[..., :1])
    within = (chosen[..., 0] - 200 * torch.arange(3)[:, None]).long()
    assert all(len(set(row.tolist())) == TOKENS and min(row) >= 0 and max(row) < 200 for row in within)
    assert set(within[0].tolist()) != set(within[1].tolist())


@pytest.fixture
def updates_alive(monkeypatch):
    """References to each ΔO of the steps."""
    alive = []
    tap = Attachment.tap

    def note(key, site, x, coefficients, update, output):
        if torch.is_grad_enabled():
            alive.append(weakref.ref(update))

    attach = Attachment.__init__

    def watched(self, *args, **named):
        attach(self, *args, **named)
        tap(self, note)

    monkeypatch.setattr(Attachment, "__init__", watched)
    return alive


@pytest.mark.parametrize("settings", [{"quiet_weight": 0.0}, {"quiet_ramp": (0.0, 0.1)}, {"gradient_checkpointing": True, "quiet_ramp": (0.0, 0.1)}])
def test_no_whole_update_is_kept_for_the_backward(tmp_path, backend, monkeypatch, updates_alive, settings):
    """With the quiet term its energies alone."""
    left = []
    loss_of = step.noise_loss

    def after_the_forward(*args):
        loss = loss_of(*args)
        gc.collect()
        left.append(sum(reference() is not None for reference in updates_alive))
        return loss

    monkeypatch.setattr(step, "noise_loss", after_the_forward)
    run(tmp_path, backend, steps=3, **settings)
    assert left == [0, 0, 0]
