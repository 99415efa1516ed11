"""The ranking at the end: what the sites' random probes say beside what taking each site away says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import small_run
from small_run import run, zorp_data

from sparsedict.sparsedict_core import load
from sparsedict.sparsedict_core.greedy import greedy_order
from sparsedict.trainer import Callbacks, ConceptData, TrainConfig, calibrate
from sparsedict.trainer.batches import draw_batch
from sparsedict.trainer.calibrate import RESPONSE_POWER, concept_part, predicted, site_responses
from sparsedict.trainer.distribution import Processes
from sparsedict.trainer.training_sets import build_sets


@torch.no_grad()
def taken_away(config, backend, adapter, sets, batches=8) -> dict[str, float]:
    """What `site_responses` estimates, with a forward for each site."""
    generator = torch.Generator().manual_seed(config.seed + 993)
    answers, energies = dict.fromkeys(adapter.sites, 0.0), dict.fromkeys(adapter.sites, 0.0)

    def note(key, site, x, coefficients, update, output):
        energies[key] += float(update.square().sum())

    for _ in range(batches):
        rows = concept_part(draw_batch(config, backend, sets, generator)).to(backend.device, backend.dtype)
        with adapter.attach(backend.denoiser, component=backend.component) as attachment:
            with attachment.tap(note):
                whole = predicted(config, backend, rows)
            for key, site in adapter.sites.items():
                attachment.set_gains({key: torch.zeros(site.atoms)})
                answers[key] += float((whole - predicted(config, backend, rows)).square().sum())
    return {key: answers[key] / energies[key] for key in adapter.sites}


def order_by(adapter, responses) -> torch.Tensor:
    """Each atom's place in the greedy order, with the moments weighted as the trainer weights them."""
    weighted = adapter.clone()
    for key, site in weighted.sites.items():
        site.moments = site.moments * responses[key] ** RESPONSE_POWER
    places = {atom: place for place, atom in enumerate(greedy_order(weighted).atoms)}
    return torch.tensor([float(places[key, row]) for key, site in adapter.sites.items() for row in range(site.atoms)])


def agreement(config, backend, adapter, sets) -> float:
    """Rank correlation of the two orders of all atoms."""
    calibrate.calibrate(config, backend, adapter, sets, responses=False)
    probed = site_responses(config, backend, adapter, sets, lambda: False)
    ranks = torch.stack([order_by(adapter, probed), order_by(adapter, taken_away(config, backend, adapter, sets))])
    return float(torch.corrcoef(ranks)[0, 1])


def test_probes_order_the_atoms_as_taking_sites_away_does(tmp_path, demo):
    adapter = run(tmp_path, demo, steps=40, learning_rate=2e-2, quiet_samples=0, quiet_weight=0.0).adapter
    config = small_run.settings(tmp_path, quiet_samples=0, quiet_weight=0.0, batch_size=8)
    sets, _ = build_sets(config, demo, zorp_data(), Processes(demo.device), Callbacks())
    assert agreement(config, demo, adapter, sets) > 0.98


def test_probes_leave_the_adapter_and_the_base_as_they_were(tmp_path, backend):
    adapter = run(tmp_path, backend, steps=2).adapter
    config = small_run.settings(tmp_path)
    sets, _ = build_sets(config, backend, zorp_data(), Processes(backend.device), Callbacks())
    before = [value.clone() for value in adapter.state_dict().values()]
    for parameter in adapter.parameters():
        parameter.grad = None  # the training's last
    plain = site_responses(config, backend, adapter, sets, lambda: False, 4)
    recomputed = site_responses(small_run.settings(tmp_path, gradient_checkpointing=True, gradient_accumulation=4), backend, adapter, sets, lambda: False, 4)
    assert plain == pytest.approx(recomputed, rel=1e-3) and all(value > 0 for value in plain.values())
    assert site_responses(config, backend, adapter, sets, lambda: True) == {}
    assert all(torch.equal(a, b) for a, b in zip(before, adapter.state_dict().values(), strict=True))
    assert not any(p.requires_grad or p.grad is not None for p in [*adapter.parameters(), *backend.denoiser.parameters()])


if __name__ == "__main__":  # python tests/trainer/test_calibrate.py ADAPTER WORD CACHE: of a whole training
    from sparsedict.tools.make_demo_images import concept_data
    from sparsedict.trainer.backends import open_backend

    torch.set_num_threads(1)
    opened, config = open_backend("demo"), TrainConfig(cache=sys.argv[3])
    data: ConceptData = concept_data(sys.argv[2])
    sets, _ = build_sets(config, opened, data, Processes(opened.device), Callbacks())
    print(f"rank correlation {agreement(config, opened, load(sys.argv[1]), sets):.4f}")
