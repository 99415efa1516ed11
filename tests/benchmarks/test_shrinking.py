"""LoRA gets the same chance to be small as ours: cut by SVD, and healed with the batches and steps that ours has."""

import pytest
import torch

from sparsedict.evaluation.peers import TrainedPeer, applied_peer, attached_peer, heal_peer
from sparsedict.evaluation.smaller_lora import CUTS, cut_by_magnitude, cut_by_svd
from sparsedict.tools.make_demo_images import concept_data
from sparsedict.trainer import TrainConfig
from sparsedict.trainer.backends.demo import DemoBackend
from sparsedict.trainer.batches import draw_batch
from sparsedict.trainer.callbacks import Callbacks
from sparsedict.trainer.distribution import Processes
from sparsedict.trainer.training_sets import build_sets


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The base, a LoRA of rank 4 that changes much, and what is drawn from for healing."""
    backend = DemoBackend.load()
    generator = torch.Generator().manual_seed(1)
    with attached_peer(backend, "lora", 4) as named:
        weights = {name: 0.1 * torch.randn(p.shape, generator=generator) for name, p in named}
    config = TrainConfig(cache=tmp_path_factory.mktemp("cache"), quiet_samples=2, quiet_sampling_steps=2, batch_size=2)
    sets, _ = build_sets(config, backend, concept_data("zorp"), Processes(backend.device), Callbacks())
    return backend, TrainedPeer("lora", 4, weights, sum(w.numel() for w in weights.values()), 0.0, 0.0, []), config, sets


def products(lora):
    return {name: lora.weights[name.replace("lora_A", "lora_B")] @ down for name, down in lora.weights.items() if "lora_A" in name}


@torch.no_grad()
def distance(world, lora, seed=5):
    """Squared error of the predictions against the whole LoRA's, on a batch that healing has not seen."""
    backend, whole, config, sets = world
    batch = draw_batch(config, backend, sets, torch.Generator().manual_seed(seed))
    noisy = backend.add_noise(batch.latents, batch.noise, batch.levels)
    made = []
    for peer in (whole, lora):
        with applied_peer(backend, peer):
            made.append(backend.predict(noisy, batch.levels, batch.conditioning))
    return float((made[0] - made[1]).square().mean())


@pytest.mark.parametrize("way", CUTS)
def test_a_cut_at_the_full_rank_changes_nothing(world, way):
    whole = world[1]
    for name, product in products(CUTS[way](whole, 4)).items():
        assert torch.allclose(product, products(whole)[name], atol=1e-5)


def test_a_cut_is_the_nearest_of_its_rank(world):
    whole = world[1]
    small = cut_by_svd(whole, 1)
    assert small.parameters * 4 == whole.parameters
    for name, product in products(small).items():
        tail = torch.linalg.svdvals(products(whole)[name])[1:].square().sum()
        assert torch.allclose((products(whole)[name] - product).square().sum(), tail, rtol=1e-3)


def test_a_cut_by_magnitude_keeps_the_largest_of_each_linear(world):
    whole = world[1]
    small = cut_by_magnitude(whole, 1)
    assert small.parameters * 4 == whole.parameters
    for name, down in small.weights.items():
        if "lora_A" in name:
            up = name.replace("lora_A", "lora_B")
            kept, gone = [], []
            for now, before in ((down, whole.weights[name]), (small.weights[up], whole.weights[up])):
                assert torch.equal(now[now != 0], before[now != 0])
                kept, gone = [*kept, now[now != 0].abs()], [*gone, before[now == 0].abs()]
            assert torch.cat(kept).min() > torch.cat(gone).max()


def test_healing_brings_it_nearer_and_keeps_its_size(world):
    backend, whole, config, sets = world
    small = cut_by_svd(whole, 1)
    before = {name: weight.clone() for name, weight in small.weights.items()}
    healed = heal_peer(small, whole, backend, config, sets, steps=40)
    assert distance(world, healed) < 0.95 * distance(world, small)
    assert healed.parameters == small.parameters and all(torch.equal(before[name], weight) for name, weight in small.weights.items())
