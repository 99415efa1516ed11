"""Out of memory, said so that a user knows which setting to change."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import torch

from ..sparsedict_core.errors import TrainingError, first_line
from .config import TrainConfig

P = ParamSpec("P")
R = TypeVar("R")

#: How allocators without an exception class of their own say it: CPU, Apple, AMD and Intel.
WORDS = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator gave up."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in WORDS)


def advice(config: TrainConfig, healing: bool = False) -> str:
    """What is left to save memory with, the cheapest first; `healing` has no precision and no resolution of its own."""
    found = []
    if not config.gradient_checkpointing:
        found.append("turn gradient_checkpointing on")
    if config.precision == "fp32" and not healing:
        found.append("set precision to bf16")
    if config.gradient_accumulation < config.batch_size:
        found.append(f"raise gradient_accumulation (now {config.gradient_accumulation}, batch_size {config.batch_size})")
    elif config.batch_size > 2:
        found.append(f"lower batch_size (now {config.batch_size})")
    if healing:
        found.append("load the base in a smaller dtype (bf16)")
    else:
        found.append(f"lower resolution (now {config.resolution or 'the base model’s own'})")
    return ", ".join(found[:-1]) + " or " + found[-1] if len(found) > 1 else found[0]


@contextlib.contextmanager
def out_of_memory_explained(config: TrainConfig, healing: bool = False) -> Iterator[None]:
    """An allocator's error within the block becomes a TrainingError with advice."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        kept = "" if healing else " Checkpoints that were written are kept."
        raise TrainingError(f"out of memory ({first_line(error)}); {advice(config, healing)}.{kept}") from error


def explain_out_of_memory(function: Callable[P, R]) -> Callable[P, R]:
    """For a function whose first argument is the TrainConfig: an allocator's error becomes a TrainingError with advice."""

    @functools.wraps(function)
    def explained(*args: P.args, **kwargs: P.kwargs) -> R:
        config = args[0] if args else kwargs["config"]
        assert isinstance(config, TrainConfig)
        with out_of_memory_explained(config):
            return function(*args, **kwargs)

    return explained
