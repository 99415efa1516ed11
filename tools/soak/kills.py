"""Kills a training again and again, also within its writes, and goes on: at the end it must be bit for bit the unbroken run."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from .row import Row
from .small_training import FINISHED, SmallTraining, damaged_files, killed_within_a_write, left_over

WITHIN_A_WRITE = 0.6  # of the kills; the others come at any time
KILLS_A_RUN = 5


def kills(count: int = 30, minutes: float | None = None, seed: int = 0, training: SmallTraining | None = None) -> Row:
    """`count` kills, or as many as fit into `minutes`."""
    row, chance, training = Row("trainings killed, also within a write, and gone on with"), random.Random(seed), training or SmallTraining()
    ends = None if minutes is None else time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as place:
        unbroken = Unbroken(training, Path(place))
        number = 0
        while row.tried < count if ends is None else time.monotonic() < ends:
            number += 1
            folder, log = Path(place) / f"run-{number}", Path(place) / f"run-{number}.log"
            folder.mkdir()
            for _ in range(KILLS_A_RUN):
                row.tried += 1
                row.violations += _killed(training, folder, log, chance, unbroken.seconds)
            row.violations += unbroken.gone_on(folder, log)
    return row


def _killed(training: SmallTraining, folder: Path, log: Path, chance: random.Random, seconds: float) -> list[str]:
    """Start or go on, kill, and look at what is left."""
    begun = (folder / "a.checkpoints").exists()
    if chance.random() < WITHIN_A_WRITE:
        child = training.start(folder, log, killed_within_a_write(chance.randrange(4), chance.choice([0.0, chance.random(), 1.0])), resume=begun)
    else:
        child = training.start(folder, log, resume=begun)
        time.sleep(chance.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
    code = training.ended(child)
    refused = [] if code in (None, FINISHED) else [f"{folder.name}: {log.read_text()[-400:]}"]
    return refused + damaged_files(folder)


class Unbroken:
    """The adapter of a run that nothing happens to."""

    def __init__(self, training: SmallTraining, place: Path) -> None:
        self.training, began = training, time.monotonic()
        folder, log = place / "whole", place / "whole.log"
        folder.mkdir()
        if training.ended(training.start(folder, log)) != FINISHED:
            raise RuntimeError(log.read_text())
        self.tensors, self.seconds = load_file(folder / "a.safetensors"), time.monotonic() - began

    def gone_on(self, folder: Path, log: Path) -> list[str]:
        """Let the run in `folder` go on to its end; what is wrong with it then."""
        code = self.training.ended(self.training.start(folder, log, resume=(folder / "a.checkpoints").exists()))
        if code != FINISHED:
            return [f"{folder} did not go on: {log.read_text()[-400:]}"]
        return self.compared(folder)

    def compared(self, folder: Path) -> list[str]:
        """What is wrong with a run that has come to its end."""
        made = load_file(folder / "a.safetensors")
        same = made.keys() == self.tensors.keys() and all(torch.equal(value, self.tensors[name]) for name, value in made.items())
        return ([] if same else [f"{folder} is not the unbroken run"]) + left_over(folder)
