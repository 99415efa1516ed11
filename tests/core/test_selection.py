"""Selecting, the two orders, energies, pruning and refit."""

from __future__ import annotations

import itertools

import pytest
import torch
from core.tiny_adapters import calibrate, make_adapter

from sparsedict.sparsedict_core.encoders import encoder_names
from sparsedict.sparsedict_core.errors import SelectionError
from sparsedict.sparsedict_core.greedy import energy_kept, greedy_order, pursue, refit_matrix
from sparsedict.sparsedict_core.prune import prune
from sparsedict.sparsedict_core.selection import Selection, rank_atoms, select

KEYS = [f"transformer.blocks.{i}.to_out.0" for i in range(3)]


def captured(adapter, model, x):
    seen = {}
    with torch.no_grad(), adapter.attach(model) as attachment, attachment.tap(lambda k, s, x, c, u, o: seen.__setitem__(k, (x, c, u))):
        model(x)
    return seen


def subset(one, two):
    return all(bool((~one[key] | two[key]).all()) for key in one)


@pytest.mark.parametrize("order", ["importance", "greedy"])
@pytest.mark.parametrize("per_site", [False, True])
def test_growing_shares_are_nested(adapter, order, per_site):
    results = [select(adapter, Selection(keep=k / 20, order=order, per_site=per_site)) for k in range(1, 21)]
    for smaller, larger in itertools.pairwise(results):
        assert subset(smaller.masks, larger.masks) and smaller.kept <= larger.kept
    assert results[-1].kept == 72 and results[-1].energy_kept == 1.0
    assert [r.kept for r in results] == ([3 * round(k * 1.2) for k in range(1, 21)] if per_site else [round(k * 3.6) for k in range(1, 21)])


def test_a_share_of_the_importance_takes_the_fewest_atoms_that_hold_it(adapter):
    values = sorted((v for site in adapter.sites.values() for v in site.importance.tolist()), reverse=True)
    for share in (0.0, 0.1, 0.5, 0.9, 1.0):
        result = select(adapter, Selection(importance_share=share))
        assert sum(values[: result.kept]) >= share * sum(values) * (1 - 1e-6)
        assert result.kept == 0 or sum(values[: result.kept - 1]) < share * sum(values) or share == 1
    with pytest.raises(SelectionError, match="importance"):
        Selection(importance_share=1.2)
    with pytest.raises(SelectionError, match="order"):
        Selection(importance_share=0.5, order="greedy")


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_the_importance_of_no_atoms_is_no_atom(adapter, share):
    adapter.sites[KEYS[1]].keep(torch.zeros(24, dtype=torch.bool))
    assert select(adapter, Selection(importance_share=share, layers="L1")).kept == 0
    for key in (KEYS[0], KEYS[2]):
        adapter.sites[key].keep(torch.zeros(24, dtype=torch.bool))
    result = select(adapter, Selection(importance_share=share))
    assert (result.kept, result.total) == (0, 0)


def test_importance_order_is_sorted_and_stable(adapter):
    ranked = rank_atoms(adapter, "importance")
    values = [adapter.sites[key].importance[row].item() for key, row in ranked]
    assert values == sorted(values, reverse=True) and len(set(ranked)) == 72
    for site in adapter.sites.values():
        site.importance.fill_(1.0)
    assert rank_atoms(adapter) == [(key, row) for key in KEYS for row in range(24)]


def test_the_ways_to_say_how_many(adapter):
    cut = sorted((v.item() for s in adapter.sites.values() for v in s.importance), reverse=True)[9]
    assert select(adapter, Selection(top=10)).kept == select(adapter, Selection(threshold=cut)).kept == 10
    assert subset(select(adapter, Selection(threshold=cut)).masks, select(adapter, Selection(top=10)).masks)
    assert select(adapter, Selection(top=0)).kept == 0
    assert select(adapter, Selection(top=1000)).kept == 72
    assert select(adapter, Selection(keep=0.001)).kept == 1
    by_address = select(adapter, Selection(atoms="L0[1,2],L2"))
    assert by_address.kept == 26 and by_address.masks[KEYS[0]].nonzero().flatten().tolist() == [1, 2]
    assert by_address.gains()[KEYS[0]].sum() == 2


def test_layers_and_invert(adapter):
    some = select(adapter, Selection(keep=0.5, layers="L1-L2"))
    assert some.kept == 24 and not some.masks[KEYS[0]].any()
    inverted = select(adapter, Selection(keep=0.5, layers="L1-L2", invert=True))
    assert all(torch.equal(inverted.masks[key], ~some.masks[key]) for key in KEYS)
    assert select(adapter, Selection(atoms="L0,L1", layers="L1")).kept == 24


BAD = [
    ({"keep": 0}, "above 0 and at most 1"),
    ({"keep": 1.5}, "above 0 and at most 1"),
    ({"keep": float("nan")}, "above 0"),
    ({"top": -1}, "0 or more"),
    ({"importance_share": 0.5, "per_site": True}, "over all sites"),
    ({}, "nothing says which"),
    ({"keep": 0.5, "top": 3}, "keep and top each say"),
    ({"keep": 0.5, "order": "best"}, "importance or greedy"),
    ({"threshold": 0.5, "order": "greedy"}, "go with the order .importance."),
    ({"threshold": float("nan")}, "not a number"),
]


@pytest.mark.parametrize("values, match", BAD)
def test_bad_selections(values, match):
    with pytest.raises(SelectionError, match=match):
        Selection(**values)


def test_what_an_order_needs_must_be_there(model):
    bare = make_adapter(model)
    with pytest.raises(SelectionError, match="no importance"):
        select(bare, Selection(keep=0.5))
    with pytest.raises(SelectionError, match="no moments"):
        select(bare, Selection(keep=0.5, order="greedy"))
    assert select(bare, Selection(keep=1.0)).kept == 72
    result = select(bare, Selection(atoms="L0"))
    assert result.energy_kept is None and "energy is not known" in result.text
    with pytest.raises(SelectionError, match="no moments"):
        prune(bare, result, refit=True)
    with pytest.raises(SelectionError, match="does not fit"):
        prune(prune(bare, select(bare, Selection(atoms="L0[1]"))), result)


def test_all_atoms_kept_is_the_plain_adapter(model, x, adapter):
    with adapter.attach(model):
        full = model(x)
    kept = prune(adapter, select(adapter, Selection(keep=1.0)))
    with kept.attach(model):
        assert torch.equal(model(x), full)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.7])
@pytest.mark.parametrize("rank", [6, None])
@pytest.mark.parametrize("encoder", encoder_names())
def test_pruned_is_masked(model, x, share, rank, encoder):
    adapter = make_adapter(model, rank=rank, encoder=encoder)
    calibrate(adapter, model, x)
    result = select(adapter, Selection(keep=share))
    with torch.no_grad(), adapter.attach(model) as attachment:
        attachment.set_gains(result.gains())
        masked = model(x)
    pruned = prune(adapter, result)
    with torch.no_grad(), pruned.attach(model):
        assert torch.allclose(model(x), masked, atol=1e-5)
    assert pruned.atom_count == result.kept and adapter.atom_count == 72
    assert sum(p.numel() for p in pruned.parameters()) <= sum(p.numel() for p in adapter.parameters())
    assert all(p.requires_grad for p in pruned.parameters())


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("rank", [6, None])
@pytest.mark.parametrize("order", ["importance", "greedy"])
def test_the_stated_energy_is_what_pruning_keeps(model, x, refit, rank, order):
    adapter = make_adapter(model, rank=rank)
    calibrate(adapter, model, x)
    result = select(adapter, Selection(keep=0.2, order=order), refit=refit)
    pruned = prune(adapter, result, refit=refit)
    lost = total = 0.0
    for key, (site_input, _, update) in captured(adapter, model, x).items():
        lost += (update - pruned.sites[key](site_input)).square().sum().item()
        total += update.square().sum().item()
    assert result.energy_kept == pytest.approx(1 - lost / total, abs=2e-3)
    assert pruned.metadata["lineage"][-1]["energy_kept"] == pytest.approx(result.energy_kept, abs=1e-5)
    assert f"{result.energy_kept:.1%}" in result.text


def test_refit_keeps_more_and_importance_follows_the_new_rows(model, x, adapter):
    result = select(adapter, Selection(keep=0.15, order="greedy"))
    assert energy_kept(adapter, result.masks, refit=True) > energy_kept(adapter, result.masks) + 0.01
    pruned = prune(adapter, result, refit=True)
    for key, (site_input, _, _) in captured(adapter, model, x).items():
        site = pruned.sites[key]
        with torch.no_grad():
            wanted = site.coefficients(site_input).abs().mean(dim=(0, 1)) * site.dictionary_norms()
        assert torch.allclose(site.importance, wanted, rtol=1e-3, atol=1e-6)


def test_refit_matrix_is_the_formula():
    c = torch.randn(100, 6, dtype=torch.float64)
    gram, mask = c.T @ c, torch.tensor([True, False, True, True, False, False])
    d = torch.randn(6, 4, dtype=torch.float64)
    block = gram[mask][:, mask]
    ridge = 1e-3 * block.diagonal().mean() * torch.eye(3, dtype=torch.float64)
    wanted = torch.linalg.inv(block + ridge) @ (gram[mask] @ d + ridge @ d[mask])
    assert torch.allclose(refit_matrix(gram, mask) @ d, wanted)
    assert torch.equal(refit_matrix(torch.zeros(6, 6, dtype=torch.float64), mask) @ d, d[mask])


def test_pursuit_is_the_one_on_the_data_itself():
    torch.manual_seed(0)
    c = torch.relu(torch.randn(300, 12, dtype=torch.float64))
    c[:, 5] = c[:, 2] + c[:, 3]  # dependent atoms must not break it
    c[:, 7] = 0
    d = torch.randn(12, 5, dtype=torch.float64)
    order, gains = pursue((c.T @ c)[None], d[None])
    target, chosen, energies = c @ d, [], []
    for _ in range(8):
        basis = torch.linalg.qr(c[:, chosen]).Q if chosen else c[:, :0]
        rest, left = target - basis @ (basis.T @ target), c - basis @ (basis.T @ c)
        norms = left.square().sum(0)
        score = torch.where(norms > 1e-6, (left.T @ rest).square().sum(1) / norms.clamp(min=1e-6), torch.zeros(12))
        score[chosen] = -1
        chosen.append(int(score.argmax()))
        energies.append(float(score.max()))
    assert order[0, :8].tolist() == chosen
    assert torch.allclose(gains[0, :8], torch.tensor(energies, dtype=torch.float64))
    assert sorted(order[0].tolist()) == list(range(12)) and 7 in order[0, -2:].tolist()
    assert gains.sum().item() == pytest.approx(target.square().sum().item(), rel=1e-6)


@pytest.mark.parametrize("apart", [1e-5, 1e-4, 1e-3, 1e-2])
def test_near_copies_of_atoms_keep_no_more_than_all(apart):
    for seed in range(20):
        torch.manual_seed(seed)
        c = torch.randn(10, 24)  # fewer rows than atoms, as after a few steps
        c[:, 12:] = c[:, :12] * torch.rand(12) + apart * torch.randn(10, 12)
        gram, d = (c.T @ c).double(), torch.randn(24, 8).double()
        energies = pursue(((gram + gram.T) / 2)[None], d[None])[1][0].cumsum(0) / (gram * (d @ d.T)).sum()
        assert energies[-1].item() == pytest.approx(1, abs=1e-3) and energies.max() < 1 + 1e-3


def test_greedy_order_over_sites(adapter):
    result = greedy_order(adapter)
    assert len(set(result.atoms)) == 72
    assert (result.energy.diff() >= -1e-12).all() and result.energy[-1].item() == pytest.approx(1, abs=1e-6)
    kept = select(adapter, Selection(top=9, order="greedy"), refit=True)
    assert kept.energy_kept == pytest.approx(result.energy[8].item(), abs=5e-3)
    assert kept.energy_kept > select(adapter, Selection(top=9), refit=True).energy_kept - 0.05


def test_pruning_again_with_the_kept_moments(model, x, adapter):
    once = prune(adapter, select(adapter, Selection(keep=0.5, order="greedy")), refit=True)
    result = select(once, Selection(top=8, order="greedy"), refit=True)
    twice = prune(once, result, refit=True)
    assert twice.atom_count == 8 and result.total == 36 and len(twice.metadata["lineage"]) == 2
    for key, site in twice.sites.items():
        assert set(site.atom_ids.tolist()) <= set(once.sites[key].atom_ids.tolist())
