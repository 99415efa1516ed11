"""Composition, the base check, and folding into new atoms."""

from __future__ import annotations

import warnings

import pytest
import torch
from core.tiny_adapters import make_adapter

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.base_check import check_base
from sparsedict.sparsedict_core.compose import compose
from sparsedict.sparsedict_core.config import MOST_ATOMS, AdapterConfig
from sparsedict.sparsedict_core.encoders import encoder_names
from sparsedict.sparsedict_core.errors import CompositionError, SelectionError, SiteError
from sparsedict.sparsedict_core.file_format import load, save
from sparsedict.sparsedict_core.folding import SiteSamples, fold_into_new_atoms
from sparsedict.sparsedict_core.prune import prune
from sparsedict.sparsedict_core.selection import Selection, select
from sparsedict.sparsedict_core.site import SiteName, SparseSite


@pytest.mark.parametrize("encoder", encoder_names())
def test_composed_is_one_after_the_other(model, x, adapter, encoder):
    other = make_adapter(model, 4, encoder=encoder, rank=None)
    composed = compose([("cat", adapter, 0.7), ("style", other, 0.4)])
    with torch.no_grad():
        with adapter.attach(model, 0.7), other.attach(model, 0.4):
            wanted = model(x)
        with composed.attach(model) as attachment:
            assert torch.equal(model(x), wanted)
            attachment.member_strengths["style"] = 0
            without = model(x)
            attachment.strength = 0
            base = model(x)
        with adapter.attach(model, 0.7):
            assert torch.equal(model(x), without)
        assert torch.equal(model(x), base)
    assert [(m.name, m.strength) for m in composed.members] == [("cat", 0.7), ("style", 0.4)]
    assert next(iter(composed.sites)).startswith("cat:transformer.")


def test_composing_copies_and_nests(model, x, adapter):
    inner = compose([("a", adapter, 0.5), ("b", make_adapter(model, 3), 1.0)])
    outer = compose([("old", inner, 0.5), ("new", adapter, 1.0)])
    assert [(m.name, m.strength) for m in outer.members] == [("old.a", 0.25), ("old.b", 0.5), ("new", 1.0)]
    with torch.no_grad(), inner.attach(model, 0.5), adapter.attach(model):
        wanted = model(x)
    with torch.no_grad(), outer.attach(model):
        assert torch.equal(model(x), wanted)
    with torch.no_grad():
        next(iter(outer.sites.values())).encoder_bias.add_(1)
    assert not torch.equal(next(iter(outer.sites.values())).encoder_bias, next(iter(adapter.sites.values())).encoder_bias)


def test_a_composed_adapter_is_selected_and_pruned_like_any(model, x, adapter):
    composed = compose([("a", adapter, 1.0), ("b", adapter, 0.5)])
    result = select(composed, Selection(keep=0.2))
    assert result.energy_kept is not None
    assert prune(composed, result).atom_count == result.kept == round(0.2 * 144)
    assert select(composed, Selection(atoms="a:L1")).kept == 24


def test_metadata_of_the_members_is_joined(model, adapter):
    a, b = adapter.clone(), make_adapter(model)
    a.metadata.update(base_family="sd3", trigger_words=["sks", "cat"], title="Cat")
    b.metadata.update(trigger_words=["cat", "ink"])
    meta = compose([("a", a, 1.0), ("b", b, 1.0)]).metadata
    assert meta["trigger_words"] == ["sks", "cat", "ink"] and meta["base_family"] == "sd3" and meta["title"] == "Cat + b"
    assert meta["lineage"][0]["operation"] == "compose"


def test_conflicts(adapter):
    other = adapter.clone()
    adapter.metadata.update(base_family="sd3", base_fingerprint="1")
    other.metadata.update(base_family="flux")
    with pytest.raises(CompositionError, match="base family flux"):
        compose([("a", adapter, 1.0), ("b", other, 1.0)])
    other.metadata.update(base_family="sd3", base_fingerprint="2")
    with pytest.warns(UserWarning, match="different models"):
        compose([("a", adapter, 1.0), ("b", other, 1.0)])
    with pytest.raises(CompositionError, match="component"):
        other.component = "unet"
        compose([("a", adapter, 1.0), ("b", other, 1.0)])
    with pytest.raises(CompositionError, match="two adapters are named"):
        compose([("a", adapter, 1.0), ("a", adapter, 1.0)])
    for name in ("", "a b", "1a", "a:b"):
        with pytest.raises(CompositionError, match="cannot name"):
            compose([(name, adapter, 1.0)])
    for strength in (float("nan"), float("inf")):
        with pytest.raises(CompositionError, match="strength of 'a'"):
            compose([("a", adapter, strength)])
    with pytest.raises(CompositionError, match="nothing"):
        compose([])
    config = AdapterConfig(atoms=4, rank=None)
    wide = SparseAdapter([SparseSite.create(SiteName(next(iter(adapter.sites)), 0), 99, 16, config)], config, "transformer")
    with pytest.raises(CompositionError, match="99"):
        compose([("a", adapter, 1.0), ("b", wide, 1.0)])


def test_check_base(model, adapter):
    adapter.metadata.update(base_family="sd3", base_fingerprint="abc")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_base(adapter, family="sd3", fingerprint="abc", model=model)
    with pytest.raises(SiteError, match="made for sd3, this base model is sdxl"):
        check_base(adapter, family="sdxl")
    with pytest.warns(UserWarning, match="another model"):
        check_base(adapter, fingerprint="other")
    model.blocks[0]["to_out"][0] = torch.nn.Linear(21, 16)
    with pytest.raises(SiteError, match="21"):
        check_base(adapter, model=model)


def samples_of(adapter, model, x, gradients=False):
    seen = {}

    def tap(key, site, site_input, c, update, output):
        u = update.reshape(-1, 16)
        seen[key] = SiteSamples(site_input.reshape(-1, 20), u, torch.ones_like(u) if gradients else None)

    with torch.no_grad(), adapter.attach(model) as attachment, attachment.tap(tap):
        model(x)
    return seen


@pytest.mark.parametrize("encoder", encoder_names())
def test_folding_keeps_most_of_the_update_in_few_new_atoms(model, x, encoder):
    adapter = make_adapter(model, encoder=encoder)
    samples = samples_of(adapter, model, x)
    folded = fold_into_new_atoms(adapter, samples, 18)
    assert folded.atom_count == 18
    lost = total = 0.0
    for key, site in folded.sites.items():
        assert site.form == "dense" and (site.atoms == 0 or site.atom_ids.min() == 24)
        with torch.no_grad():
            lost += (site(samples[key].x) - samples[key].update).square().sum().item()
        total += samples[key].update.square().sum().item()
    assert lost / total < 0.35
    assert folded.metadata["lineage"][-1]["operation"] == "fold"
    assert select(folded, Selection(keep=0.5)).kept == 9


def test_folding_gives_no_address_a_second_time(model, x, adapter, tmp_path):
    few = prune(adapter, select(adapter, Selection(atoms="L0[0-3],L1[0-3],L2[0-3]")))
    samples = samples_of(few, model, x)
    once = fold_into_new_atoms(few, samples, 6)
    given = {key: site.atom_ids.tolist() for key, site in once.sites.items()}
    assert all(ids == list(range(24, 24 + len(ids))) for ids in given.values()) and any(given.values())
    save(prune(once, select(once, Selection(top=2))), tmp_path / "a.safetensors", torch.float32)
    pruned = load(tmp_path / "a.safetensors")
    twice = fold_into_new_atoms(pruned, samples_of(pruned, model, x), 2)
    assert twice.atom_count == 2
    for key, site in twice.sites.items():
        assert not set(site.atom_ids.tolist()) & {*range(24), *given[key]}


def test_folding_counts_the_ids_of_each_member(model, x, adapter):
    other = make_adapter(model, 4, atoms=40, rank=None)
    composed = compose([("a", adapter, 1.0), ("b", other, 1.0)])
    few = prune(composed, select(composed, Selection(atoms="a:L0[0-3],b:L0[0-3]")))
    folded = fold_into_new_atoms(few, samples_of(few, model, x), 8)
    first = {site.member: int(site.atom_ids.min()) for site in folded.sites.values() if site.atoms}
    assert first == {"a": 24, "b": 40}
    for member in folded.members:
        assert member.config.atoms == 1 + max(int(s.atom_ids.max()) for s in folded.sites.values() if s.atoms and s.member == member.name)


def test_folding_by_gradient_and_with_quiet_inputs(model, x, adapter):
    samples = samples_of(adapter, model, x, gradients=True)
    folded = fold_into_new_atoms(adapter, samples, 10)
    assert folded.metadata["lineage"][-1]["with_gradients"]
    quiet_x = torch.randn(200, 20) - 3
    quiet = {k: SiteSamples(s.x, s.update, s.gradient, quiet_x) for k, s in samples.items()}
    silent = fold_into_new_atoms(adapter, quiet, 10)
    with torch.no_grad():
        loud = sum(site(quiet_x).square().sum().item() for site in folded.sites.values())
        assert sum(site(quiet_x).square().sum().item() for site in silent.sites.values()) < 0.3 * loud


def test_folding_refuses_what_it_cannot_do(model, x, adapter):
    samples = samples_of(adapter, model, x)
    with pytest.raises(SelectionError, match="1 or more"):
        fold_into_new_atoms(adapter, samples, 0)
    with pytest.raises(SelectionError, match="no samples"):
        fold_into_new_atoms(adapter, {}, 5)
    adapter.config = AdapterConfig(atoms=MOST_ATOMS)
    with pytest.raises(SelectionError, match="no ids left"):
        fold_into_new_atoms(adapter, samples, 5)
