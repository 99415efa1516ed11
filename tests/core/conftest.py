"""Fixtures: a tiny model with three sites, and an adapter on it that really does something."""

from __future__ import annotations

import pytest
import torch
from core.tiny_adapters import WIDTH, TinyModel, calibrate, make_adapter

from sparsedict.sparsedict_core.adapter import SparseAdapter

torch.set_num_threads(1)


@pytest.fixture
def model() -> TinyModel:
    torch.manual_seed(0)
    return TinyModel().requires_grad_(False)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(3, 30, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def adapter(model, x) -> SparseAdapter:
    """Random, calibrated, with moments."""
    made = make_adapter(model)
    calibrate(made, model, x)
    return made.requires_grad_(False)
