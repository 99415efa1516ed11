"""A checkpoint is what it was, or is refused in one sentence: every kind of damage, foreign files, older and newer ones."""

from __future__ import annotations

import json
import os
import random

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from toy_adapters import toy_adapter

from sparsedict.sparsedict_core.errors import CheckpointError
from sparsedict.trainer import TrainConfig, checkpoint
from sparsedict.trainer.revival import DeadAtoms

SETTINGS = {"steps": 6, "learning_rate": 0.01, "base_fingerprint": "toy"}


class Run:
    """The parts of a run that a checkpoint holds."""

    def __init__(self, seed=0, steps=2):
        self.adapter = toy_adapter(seed=seed, atoms=4, layers=2, width=6).trainable()
        self.optimiser = torch.optim.Adam([p for _, p in self.adapter.trainable_parameters()])
        self.generator = torch.Generator().manual_seed(seed)
        self.dead = DeadAtoms(self.adapter)
        for number, idle in enumerate(self.dead.idle.values()):
            idle.fill_(steps * number)
        for _ in range(steps):
            self.optimiser.zero_grad()
            sum((p * torch.randn(p.shape, generator=self.generator)).sum() for _, p in self.adapter.trainable_parameters()).backward()
            self.optimiser.step()
        self.state = checkpoint.RunState(step=steps, smoothed_loss=0.5, log=[{"step": 1, "loss": 0.25}])

    def parts(self):
        return self.adapter, self.optimiser, self.generator, self.dead

    def everything(self):
        tensors = [*self.adapter.state_dict().values(), self.generator.get_state(), *self.dead.idle.values()]
        tensors += [value for _, entry in sorted(self.optimiser.state_dict()["state"].items()) for _, value in sorted(entry.items())]
        return b"".join(tensor.numpy().tobytes() for tensor in tensors)


@pytest.fixture
def kept(tmp_path):
    """A checkpoint of step 2, with one of step 1 before it."""
    run = Run()
    checkpoint.write(tmp_path, SETTINGS, *run.parts(), checkpoint.RunState(**{**vars(run.state), "step": 1}), keep=2)
    return checkpoint.write(tmp_path, SETTINGS, *run.parts(), run.state, keep=2)


def read(path, settings=SETTINGS):
    """The run that went on from a checkpoint, with its state."""
    other = Run(seed=1, steps=0)
    return other, checkpoint.read(path, settings, *other.parts())


def rewritten(path, change_tensors=lambda tensors: None, **metadata):
    with safe_open(str(path), "pt") as file:
        known = file.metadata()
    tensors = load_file(str(path))
    change_tensors(tensors)
    save_file(tensors, str(path), {name: value for name, value in {**known, **metadata}.items() if value is not None})


def as_version_1(path, change_tensors=lambda tensors: None):
    rewritten(path, change_tensors, version=None, checksum=None)


def test_what_was_written_is_read(kept):
    other, state = read(kept)
    assert other.everything() == Run().everything() and state == Run().state


def test_any_flipped_bit_is_noticed(kept):
    data, chance, noticed = kept.read_bytes(), random.Random(0), 0
    places = [*range(0, 8 + int.from_bytes(data[:8], "little"), 31), *(chance.randrange(len(data)) for _ in range(60))]
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << chance.randrange(8)
        kept.write_bytes(flipped)
        try:
            assert read(kept)[0].everything() == Run().everything()  # in the header's padding, say
        except CheckpointError as error:
            assert str(kept) in str(error) and "\n" not in str(error)
            noticed += 1
    assert noticed > 0.97 * len(places)


DAMAGED = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "cut in its header": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"0"),
    "text": lambda path: path.write_bytes(b"hello " * 99),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a tensor changed": lambda path: rewritten(path, lambda tensors: tensors["adapter." + next(k for k in Run().adapter.state_dict())].add_(1)),
    "no optimiser tensor": lambda path: rewritten(path, lambda tensors: tensors.pop("optimiser.1.exp_avg")),
    "a tensor more": lambda path: rewritten(path, lambda tensors: tensors.update(more=torch.zeros(1))),
    "another step": lambda path: rewritten(path, state=json.dumps({**vars(Run().state), "step": 1})),
    "settings that are no JSON": lambda path: rewritten(path, version=None, config="{"),
    "settings that are a list": lambda path: rewritten(path, version=None, config="[]"),
    "no state": lambda path: rewritten(path, version=None, state=None),
    "a state without its step": lambda path: rewritten(path, version=None, state="{}"),
    "version 1 without an optimiser tensor": lambda path: as_version_1(path, lambda tensors: tensors.pop("optimiser.1.exp_avg")),
    "version 1 without an optimiser entry": lambda path: as_version_1(path, lambda tensors: [tensors.pop(k) for k in list(tensors) if k.startswith("optimiser.1.")]),
    "version 1 without a generator": lambda path: as_version_1(path, lambda tensors: tensors.pop("generator")),
    "version 1 with a generator of another kind": lambda path: as_version_1(path, lambda tensors: tensors.update(generator=torch.zeros(3))),
    "version 1 with idle counts of another length": lambda path: as_version_1(path, lambda tensors: tensors.update({"idle.blocks.0": torch.zeros(3, dtype=torch.int32)})),
    "version 1 without an adapter tensor": lambda path: as_version_1(path, lambda tensors: tensors.pop("adapter." + next(k for k in Run().adapter.state_dict()))),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_checkpoint_is_one_error_that_names_it_and_the_one_before(kept, what):
    DAMAGED[what](kept)
    with pytest.raises(CheckpointError, match=r"step-000002\.safetensors is damaged .*delete it to go on from step-000001\.safetensors\.$"):
        read(kept)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="made of what only POSIX has")
def test_a_pipe_in_a_checkpoint_s_place_is_not_waited_for(kept):
    kept.unlink()
    os.mkfifo(kept)
    with pytest.raises(CheckpointError, match="it is a pipe"):
        read(kept)


def test_without_another_one_there_is_none_to_go_on_from(kept):
    kept.with_name("step-000001.safetensors").unlink()
    DAMAGED["truncated"](kept)
    with pytest.raises(CheckpointError, match="start anew, as there is none before it"):
        read(kept)


def test_foreign_newer_and_older_ones_are_told_apart(kept):
    rewritten(kept, version="3")
    with pytest.raises(CheckpointError, match=r"checkpoint of version '3', this program reads up to 2"):
        read(kept)
    as_version_1(kept)
    assert read(kept)[0].everything() == Run().everything()
    save_file({"a": torch.zeros(2)}, str(kept))
    with pytest.raises(CheckpointError, match="no checkpoint of a training run"):
        read(kept)


def test_what_may_change_between_runs_and_what_may_not(kept):
    assert read(kept, {**SETTINGS, "steps": 80})[1].step == 2
    with pytest.raises(CheckpointError, match=r"2 steps done already, more than the 1 asked for; give more steps"):
        read(kept, {**SETTINGS, "steps": 1})
    with pytest.raises(CheckpointError, match=r"learning_rate = 0\.01, this run has 0\.02; .*\(steps, previews, checkpoints and logs may be others\)"):
        read(kept, {**SETTINGS, "learning_rate": 0.02})
    with pytest.raises(CheckpointError, match="other base weights"):
        read(kept, {**SETTINGS, "base_fingerprint": "another"})


def test_the_newest_is_that_of_the_most_steps(tmp_path):
    run = Run()
    for step in (999_999, 1_000_000):
        checkpoint.write(tmp_path, SETTINGS, *run.parts(), checkpoint.RunState(**{**vars(run.state), "step": step}), keep=2)
    (tmp_path / "step-mine.safetensors").touch()
    assert checkpoint.newest(tmp_path).name == "step-1000000.safetensors"


def test_a_setting_that_came_later_was_its_default_before(kept):
    default = TrainConfig().random_crops
    assert read(kept, {**SETTINGS, "random_crops": default})[1].step == 2
    with pytest.raises(CheckpointError, match=f"random_crops = {default}, this run has 3"):
        read(kept, {**SETTINGS, "random_crops": 3})
