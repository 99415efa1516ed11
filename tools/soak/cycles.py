"""Adapters applied, turned, chosen from and taken off again: memory stays flat, and the base is the same bits."""

from __future__ import annotations

import gc
import random
import time

import torch

from ...sparsedict_core.compose import compose
from ...sparsedict_core.selection import Selection, select
from .budget import memory_now
from .model import StackModel, stack_adapter
from .row import Row

MOVED = 0.2  # of the cycles
WARM_UP, MOST_GROWTH = 100, 16e6  # cycles, and bytes that all after them may add


def cycles(count: int = 1000, minutes: float | None = None, seed: int = 0) -> tuple[Row, float]:
    """`count` cycles, or as many as fit into `minutes`; beside the row, the bytes that the process has gained after its warm-up."""
    row, chance = Row("adapters applied, turned, chosen from and removed, some with the model moved meanwhile"), random.Random(seed)
    ends = None if minutes is None else time.monotonic() + 60 * minutes
    model, adapters = StackModel(), [stack_adapter(number) for number in range(3)]
    x = torch.randn(2, 5, model.width, generator=torch.Generator().manual_seed(1))
    base, start = model(x), 0.0
    while row.tried < count if ends is None else time.monotonic() < ends or row.tried <= WARM_UP:
        row.tried += 1
        chosen = chance.sample(adapters, chance.choice((1, 1, 2)))
        adapter = chosen[0] if len(chosen) == 1 else compose([("one", chosen[0], 0.5), ("two", chosen[1], 1.0)])
        with adapter.attach(model, chance.uniform(-1, 1)) as attachment:
            first = model(x)
            attachment.set_gains(select(adapter, Selection(keep=chance.uniform(0.05, 1))).gains())
            model(x)
            attachment.set_gains(None)
            if not torch.equal(model(x), first):
                row.violations.append(f"cycle {row.tried}: other bits once all atoms are back")
            if chance.random() < MOVED:
                # As a host that unloads a model and loads it again: all its tensors are others, with the same values.
                model.double().float()
                if not torch.equal(model(x), first):
                    row.violations.append(f"cycle {row.tried}: other bits once the model was moved")
            attachment.strength = 0.0
            if not torch.equal(model(x), base):
                row.violations.append(f"cycle {row.tried}: strength 0 is not the base")
        if not torch.equal(model(x), base):
            row.violations.append(f"cycle {row.tried}: the base has changed")
        if row.tried == WARM_UP:
            gc.collect()
            start = memory_now()
    gc.collect()
    grown = memory_now() - start
    if grown > MOST_GROWTH:
        row.violations.append(f"the process has grown by {grown / 1e6:.0f} MB")
    return row, grown
