"""Each family that is written down, and each newer denoiser, as a tiny random model of the real class: trained, saved, loaded, pruned."""

from __future__ import annotations

import pytest
import torch
from core.newer_denoisers import NEWER
from core.tiny_denoisers import DENOISERS, output_of, shaken

from sparsedict.sparsedict_core import site_discovery
from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.addresses import format_address, resolve
from sparsedict.sparsedict_core.base_check import check_base
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.errors import SiteError
from sparsedict.sparsedict_core.file_format import load, save
from sparsedict.sparsedict_core.prune import prune
from sparsedict.sparsedict_core.selection import Selection, select
from sparsedict.sparsedict_core.site_discovery import discover_sites
from sparsedict.sparsedict_core.training_state import TrainingSession

STEPS = 3


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def trained(model, inputs, found):
    """An adapter after three steps as the trainer makes them: no site is left out, and every threshold moves."""
    adapter = SparseAdapter.create(model, found.sites, AdapterConfig(atoms=6, rank=3, density=0.9), found.component)
    base = output_of(model, inputs)
    optimiser = torch.optim.Adam(adapter.parameters(), 0.02)
    with adapter.attach(model) as attachment:
        assert torch.equal(output_of(model, inputs), base)
        session = TrainingSession(attachment)
        for _ in range(STEPS):
            session.begin(0.9)
            loss = (output_of(model, inputs) - base.roll(1)).square().mean()
            assert session.end_forward().density.keys() == adapter.sites.keys()
            loss.backward()
            assert all(site.dictionary_basis.grad.abs().sum() > 0 for site in adapter.sites.values()), "a site has no influence on the output"
            optimiser.step()
            optimiser.zero_grad()
            session.commit()
        session.close()
    assert all(site.threshold > 0 for site in adapter.sites.values())
    return adapter.requires_grad_(False)


@pytest.mark.parametrize("name", [*DENOISERS, *NEWER])
def test_trained_saved_loaded_pruned(name, tmp_path, monkeypatch):
    """The newer ones as if nobody had written them down, also those that have a file."""
    if name in NEWER:
        monkeypatch.setattr(site_discovery, "_written_down", lambda model: None)
    model, inputs = (DENOISERS | NEWER)[name][0]()
    shaken(model)
    found = discover_sites(model, run=lambda: output_of(model, inputs))
    if name in NEWER:
        assert len(found.sites) == NEWER[name][1] and found.own_names == "diffusers" and found.family == type(model).__name__
        assert discover_sites(model).sites == found.sites, "what was seen is kept"
    adapter = trained(model, inputs, found)
    for key in adapter.sites:
        assert {k for k, mask in resolve(adapter, format_address(adapter, key, 2)).items() if mask.any()} == {key}
    save(adapter, tmp_path / "a.safetensors", torch.float32)
    loaded = load(tmp_path / "a.safetensors")
    with torch.no_grad():
        base = output_of(model, inputs)
        with adapter.attach(model):
            full = output_of(model, inputs)
        assert not torch.equal(full, base)
        with loaded.attach(model):
            assert torch.equal(output_of(model, inputs), full)
        with prune(loaded, select(loaded, Selection(top=0))).attach(model):
            assert torch.equal(output_of(model, inputs), base)
        kept = prune(loaded, select(loaded, Selection(atoms=",".join(f"L{layer}" for layer in sorted({s.layer for s in found.sites})))))
        with kept.attach(model):
            assert torch.equal(output_of(model, inputs), full)
        half = prune(loaded, select(loaded, Selection(atoms=",".join(format_address(loaded, key, 2) for key in loaded.sites))))
        with half.attach(model):
            assert half.atom_count == len(found.sites) and not torch.equal(output_of(model, inputs), full)
    loaded.metadata |= {"base_family": "Krea2", "site_names": "ComfyUI"}
    with pytest.raises(SiteError, match=f"made for Krea2 under the names of ComfyUI, this base model is {found.family}"):
        check_base(loaded, found.family)
