"""How the commands that train a little work through their batches: the options of `train` under the same names, and what they set."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from .common import options

if TYPE_CHECKING:
    from ..trainer.config import TrainConfig


def healing_options(function: Callable) -> Callable:
    return options(
        click.option("--train-batch-size", "--batch-size", "batch_size", type=click.IntRange(1), default=None, help="Rows of a healing step.  [default: 16]"),
        click.option("--gradient-accumulation-steps", "gradient_accumulation", type=click.IntRange(1), default=None,
                     help="Parts that a step's batch is worked through in, to save memory.  [default: 1]"),
        click.option("--gradient-checkpointing", is_flag=True, help="Less memory for more time."),
    )(function)  # fmt: skip


def healing_batch(**given: Any) -> TrainConfig:
    """The trainer's settings with those options. Raises TrainingError for a batch that cannot be parted so."""
    from ..trainer.config import TrainConfig

    return TrainConfig(**{name: value for name, value in given.items() if value is not None})
