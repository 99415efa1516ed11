"""The pictures that the base makes of itself: how many of each size, by whom, for which prompts."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_pipelines import save_tiny

sys.path.insert(0, str(Path(__file__).parent))
import small_run

from sparsedict.sparsedict_core.errors import TrainingError
from sparsedict.trainer import Callbacks, ConceptData, TrainConfig, train
from sparsedict.trainer.backends import open_backend
from sparsedict.trainer.batches import draw_batch
from sparsedict.trainer.distribution import Processes
from sparsedict.trainer.quiet import bucket_counts, load_or_make, quiet_prompts
from sparsedict.trainer.training_sets import build_sets


def test_quiet_samples_are_shared_out_to_the_buckets(tmp_path):
    assert bucket_counts(96, [5]) == [96] and bucket_counts(96, [9, 3, 1]) == [66, 22, 16] and bucket_counts(4, [1, 1]) == [4, 4]
    backend = open_backend(save_tiny("sd3", tmp_path / "base"))
    data = ConceptData.from_tensors([torch.zeros(3, 32, 32), torch.zeros(3, 24, 40), torch.zeros(3, 32, 32)], "a zorp")
    config = small_run.settings(tmp_path, quiet_samples=20, resolution=32)
    sets, quiet = build_sets(config, backend, data, Processes(backend.device), Callbacks())
    assert [len(q.latents) for q in quiet] == [16, 16] and quiet[0].captions != quiet[1].captions
    sizes = {tuple(draw_batch(config, backend, sets, torch.Generator().manual_seed(seed)).latents.shape[-2:]) for seed in range(12)}
    assert len(sizes) == 2  # batches of both buckets, each with quiet rows of its own size
    train(small_run.settings(tmp_path, quiet_samples=20, resolution=32, steps=4), backend, data, Callbacks())


class Share(Processes):
    """One of several processes; `others` is what they have made."""

    def __init__(self, device, rank, world, others=0):
        super().__init__(device)
        self.rank, self.world, self.others = rank, world, others

    def sum(self, value):
        return value + self.others


def test_quiet_samples_are_made_by_all_processes_together(tmp_path, backend, monkeypatch):
    config = small_run.settings(tmp_path, quiet_samples=20, batch_size=4)
    alone = load_or_make(config, backend, (16, 16), tmp_path / "alone").latents
    asked, sample = [], type(backend).sample
    monkeypatch.setattr(type(backend), "sample", lambda self, captions, *more, **named: asked.append(len(captions)) or sample(self, captions, *more, **named))
    shares = [load_or_make(config, backend, (16, 16), tmp_path / str(rank), processes=Share(backend.device, rank, 3)).latents for rank in range(3)]
    assert sorted(asked) == [4] * 5 and torch.equal(sum(shares), alone)
    # No more than one call of the sampler apart.
    assert sorted(int((share != 0).flatten(1).any(1).sum()) for share in shares) == [4, 8, 8]


def test_quiet_prompts_with_words_that_the_base_never_learned(backend):
    config = TrainConfig(quiet_samples=48, quiet_word_share=1 / 3, placeholder="zorp")
    prompts, plain = quiet_prompts(config, backend), quiet_prompts(TrainConfig(quiet_samples=48), backend)
    changed = [(p, q) for p, q in zip(prompts, plain, strict=True) if p != q]
    assert 12 <= len(changed) <= 16 and "a blick" in prompts and not any("zorp" in p for p in prompts) and plain.count("") == prompts.count("") == 6
    backend.encode_captions(prompts)
    with pytest.raises(TrainingError, match="quiet_words"):
        quiet_prompts(config, SimpleNamespace(quiet_prompts=lambda: ["a cat"]))
