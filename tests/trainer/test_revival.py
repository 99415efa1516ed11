"""Atoms that stay silent are started anew."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import torch

sys.path.insert(0, str(Path(__file__).parent))
from small_run import run

from sparsedict.trainer.revival import DeadAtoms


def toy_adapter() -> SimpleNamespace:
    generator = torch.Generator().manual_seed(0)
    shapes = {"encoder_weight": (4, 3), "encoder_bias": (4,), "dictionary_weight": (4, 3)}
    site = SimpleNamespace(atoms=4, **{name: torch.nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()})
    return SimpleNamespace(sites={"a": site})


def test_an_atom_that_stays_silent_is_started_anew():
    adapter = toy_adapter()
    site, dead = adapter.sites["a"], DeadAtoms(adapter)
    optimiser = torch.optim.Adam([site.encoder_weight, site.encoder_bias, site.dictionary_weight])
    sum(p.square().sum() for p in optimiser.param_groups[0]["params"]).backward()
    optimiser.step()
    fires = torch.tensor([[1.0, 0.0, 2.0, 0.5]])
    for _ in range(3):
        dead.observe("a", fires)
        assert dead.end_step(None)[0] == 1
    before = site.encoder_weight.detach().clone()
    assert dead.revive(adapter, optimiser, 3, torch.Generator().manual_seed(1)) == 1
    changed = (site.encoder_weight != before).any(1)
    assert changed.tolist() == [False, True, False, False] and site.encoder_bias[1] == 0
    moments = optimiser.state[site.encoder_weight]["exp_avg"]
    assert not moments[1].any() and moments[0].all() and dead.idle["a"].tolist() == [0, 0, 0, 0]


def test_atoms_outside_of_a_prefix_are_not_counted_as_silent():
    dead = DeadAtoms(toy_adapter())
    dead.observe("a", torch.tensor([[1.0, 0.0]]))
    assert dead.end_step({"a": 2})[0] == 1 and dead.idle["a"].tolist() == [0, 1, 0, 0]


def test_an_atom_that_fires_in_another_process_is_alive():
    dead = DeadAtoms(toy_adapter())
    dead.observe("a", torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    assert dead.end_step(None, dead.fired | torch.tensor([False, True, False, False]))[0] == 2
    assert dead.idle["a"].tolist() == [0, 0, 1, 1]


def test_a_run_revives_dead_atoms(tmp_path, backend, monkeypatch):
    revived = []
    revive = DeadAtoms.revive
    monkeypatch.setattr(DeadAtoms, "revive", lambda *a: revived.append(revive(*a)))
    monkeypatch.setattr(DeadAtoms, "observe", lambda self, key, c: self._seen.add(key))
    sites = run(tmp_path, backend, steps=4, revive_after=2, nested=0.0).adapter.sites
    assert revived == [24 * len(sites)]  # not in the last 30 % of the steps, where they could learn nothing any more
