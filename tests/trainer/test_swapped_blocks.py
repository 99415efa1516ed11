"""Blocks that wait elsewhere: the same pictures and gradients to rounding, and nothing is left on the device."""

from __future__ import annotations

import pytest
import torch
from tiny_pipelines import PIPELINES, SIDE, save_tiny

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.site_discovery import discover_sites
from sparsedict.trainer import TrainConfig
from sparsedict.trainer.backends import placement, swapped_blocks
from sparsedict.trainer.backends.open_diffusers import open_diffusers
from sparsedict.trainer.footprint import blank_batch
from sparsedict.trainer.forward import noise_loss, recomputed_blocks


@pytest.fixture
def elsewhere(monkeypatch):
    """Weights wait in another precision, as a test has one device only: whoever computes with them there raises. Yields what is fetched."""
    fetched = []

    def fetch(kept, device):
        here = kept.to(torch.float32)
        fetched.append(here.nbytes)
        return here

    monkeypatch.setattr(swapped_blocks, "put_away", lambda tensor, device: tensor.to(torch.float64))
    monkeypatch.setattr(swapped_blocks, "fetch", fetch)
    return fetched


def gradients(backend, checkpointing):
    batch = blank_batch(backend, 2, SIDE)
    batch.latents.normal_(generator=torch.Generator().manual_seed(0))
    for value in batch.conditioning.values():
        if value.is_floating_point():
            value.normal_(generator=torch.Generator().manual_seed(1))
    discovery = discover_sites(backend.denoiser)
    adapter = SparseAdapter.create(backend.denoiser, discovery.sites, AdapterConfig(atoms=16, rank=4), discovery.component)
    adapter.trainable()
    with torch.no_grad():
        for name, parameter in adapter.trainable_parameters():
            if "dictionary" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(2))
    with recomputed_blocks(backend, checkpointing), adapter.attach(backend.denoiser, component=backend.component):
        loss = noise_loss(TrainConfig(), backend, batch)
        loss.backward()
    return loss.detach(), {name: parameter.grad.clone() for name, parameter in adapter.trainable_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("name", PIPELINES)
def test_the_same_pictures_and_gradients(tmp_path, name, elsewhere):
    whole, swapped = (open_diffusers(save_tiny(name, tmp_path / number)) for number in ("one", "two"))
    swapped.keep_blocks_on_cpu()
    assert swapped.recomputes_blocks and not whole.recomputes_blocks
    blocks = swapped_blocks.repeated_blocks(swapped.denoiser)
    assert all(tensor.dtype == torch.float64 or not tensor.is_floating_point() for block in blocks for tensor in block.parameters() if elsewhere)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    # Fetched weights lie at other places in memory, from which kernels may round otherwise.
    torch.testing.assert_close(swapped.sample(["a"], noise, 2, 1.0), whole.sample(["a"], noise, 2, 1.0), rtol=1e-4, atol=1e-5)
    assert elsewhere
    loss, expected = gradients(whole, False)
    same_loss, same = gradients(swapped, True)
    torch.testing.assert_close(loss, same_loss, rtol=1e-5, atol=1e-6)
    assert same.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(same[key], value, rtol=1e-3, atol=1e-5)
    assert all(parameter.grad is None for parameter in swapped.denoiser.parameters())
    # Nothing is left there.
    assert all(parameter.dtype == torch.float64 for block in blocks for parameter in block.parameters())


def test_a_denoiser_that_does_not_fit_leaves_its_blocks_outside(monkeypatch):
    monkeypatch.setattr(placement.Placement, "_free", lambda self: 100.0)
    monkeypatch.setattr(placement, "swap_blocks", lambda model, device: swapped.append(device))
    swapped: list = []
    placed = placement.Placement(torch.nn.Linear(100, 100), torch.device("cuda"))
    assert swapped == [torch.device("cuda")] and placed.swapped and not placed.movable
    monkeypatch.setattr(placement.Placement, "_free", lambda self: 1e9)
    monkeypatch.setattr(torch.nn.Linear, "to", lambda self, device: self)
    assert not placement.Placement(torch.nn.Linear(100, 100), torch.device("cuda")).swapped
