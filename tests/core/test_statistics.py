"""Importance and input statistics: right, streaming, mergeable."""

from __future__ import annotations

import pytest
import torch
from core.tiny_adapters import INNER, calibrate, make_adapter, site_names

from sparsedict.sparsedict_core import fired
from sparsedict.sparsedict_core.errors import SiteError, SparseDictError
from sparsedict.sparsedict_core.importance import ImportanceStats
from sparsedict.sparsedict_core.input_statistics import InputStatistics

KEY = "transformer.blocks.1.to_out.0"


@torch.no_grad()
def observe(adapter, model, x):
    seen = {}
    with adapter.attach(model) as attachment, attachment.tap(lambda k, s, x, c, u, o: seen.__setitem__(k, (x, c, u, o))):
        model(x)
    return seen


def test_importance_is_the_mean_norm_of_what_an_atom_adds(model, x):
    adapter = make_adapter(model)
    stats = calibrate(adapter, model, x)
    for key, (_, c, update, output) in observe(adapter, model, x).items():
        site = adapter.sites[key]
        added = (c[..., None] * site.dictionary()).norm(dim=-1).mean(dim=(0, 1))
        assert torch.allclose(site.importance, added, rtol=1e-4)
        assert torch.allclose(site.firing, (c != 0).float().mean(dim=(0, 1)), atol=1e-6)
        assert torch.allclose(stats.mean_coefficients(key).float(), c.abs().mean(dim=(0, 1)), rtol=1e-4)
        assert torch.allclose(stats.relative(adapter, key).float(), added / output.norm(dim=-1).mean(), rtol=1e-4)
        assert torch.allclose(site.moments, torch.einsum("bti,btj->ij", c, c) / 3, rtol=1e-3, atol=1e-4)
        dictionary = site.dictionary()
        energy = (site.moments * (dictionary @ dictionary.T)).sum()
        assert energy.item() == pytest.approx(update.square().sum().item() / 3, rel=1e-4)
    assert stats.layers(adapter)[1] == pytest.approx(adapter.sites[KEY].importance.sum().item(), rel=1e-5)


def test_only_the_strongest_atoms_of_a_probe_have_maps(model, x, monkeypatch):
    """A large model has thousands that fire; a map of each is work for nothing."""
    drawn = []
    monkeypatch.setattr(fired, "on_grid", lambda tokens, size, text_first: drawn.append(tokens) or tokens)
    adapter = make_adapter(model)
    stats = calibrate(adapter, model, x)
    maps = {key: torch.rand(6, site.atoms) for key, site in adapter.sites.items()}
    found = fired.fired_atoms(stats, adapter, maps, (2, 3), mapped=5)
    assert len(found) > 20 and len(drawn) == 5
    assert [atom.map is not None for atom in found] == [True] * 5 + [False] * (len(found) - 5)
    assert [atom.norm for atom in found] == sorted((atom.norm for atom in found), reverse=True)


def test_labels_per_batch_and_per_row(model, x):
    adapter = make_adapter(model)
    stats = ImportanceStats()
    with torch.no_grad(), adapter.attach(model) as attachment, stats.collect(attachment):
        stats.label(bucket=0, prompt="a")
        model(x)
        stats.label(bucket=1, prompt=["a", "b", "b"])
        model(x)
        with pytest.raises(SparseDictError, match="batch of 3"):
            stats.label(prompt=["a", "b"])
            model(x)
    assert stats.buckets == [0, 1] and stats.prompts == ["a", "b"]
    assert stats.sums(KEY, bucket=1, prompt="b").tokens == 60
    only_b = calibrate(make_adapter(model), model, x[1:])
    assert torch.allclose(stats.firing_rate(KEY, 1, "b"), only_b.firing_rate(KEY))
    with pytest.raises(SparseDictError, match="no statistics"):
        stats.sums(KEY, bucket=7)


def test_merging_parts_is_gathering_the_whole(model, x):
    one, two = make_adapter(model), make_adapter(model)
    whole = calibrate(one, model, x)
    parts = [calibrate(two, model, x[:1]), calibrate(two, model, x[1:])]
    merged = ImportanceStats(moments=True).merge(parts[0]).merge(parts[1])
    merged.to_importance(two)
    for key in one.sites:
        assert torch.allclose(one.sites[key].importance, two.sites[key].importance, rtol=1e-5)
        assert torch.allclose(one.sites[key].moments, two.sites[key].moments, rtol=1e-4, atol=1e-5)
    assert whole.sums(KEY).tokens == merged.sums(KEY).tokens == 90


def test_input_statistics_are_those_of_the_whole(model, x):
    a, b = InputStatistics(), InputStatistics()
    whole = InputStatistics()
    shifted = x + 100
    with a.collect(model, site_names(), "transformer"):
        model(shifted[:1])
    with b.collect(model, site_names(), "transformer"):
        model(shifted[1:])
    with whole.collect(model, site_names(), "transformer"):
        model(shifted)
    a.merge(b)
    path = site_names()[0].path
    inner = torch.tanh(model.blocks[0]["inner"](shifted)).reshape(-1, INNER).double()
    assert torch.allclose(a.mean[path], whole.mean[path]) and torch.allclose(a.std(path), whole.std(path), atol=1e-7)
    assert torch.allclose(a.std(path), inner.std(0, correction=0), atol=1e-6)
    assert all(not module._forward_pre_hooks for module in model.modules())
    adapter = make_adapter(model, fresh=True)
    whole.apply(adapter)
    assert all(site.standardised for site in adapter.sites.values())
    with pytest.raises(SparseDictError, match="no input statistics"):
        InputStatistics().apply(adapter)
    with pytest.raises(SiteError):
        with a.collect(model, [site_names()[0]._replace(path="nope")]):
            pass


def test_standardised_input_has_mean_zero_and_std_one(model, x):
    stats = InputStatistics()
    with stats.collect(model, site_names(), "transformer"):
        model(x)
    adapter = make_adapter(model, fresh=True)
    stats.apply(adapter)
    site = adapter.sites[KEY]
    with torch.no_grad():
        site_input = observe(adapter, model, x)[KEY][0]
    x_hat = (site_input - site.encoder_mean) / site.encoder_scale
    assert x_hat.mean(dim=(0, 1)).abs().max() < 1e-3 and (x_hat.std(dim=(0, 1)) - 1).abs().max() < 0.02


def test_a_site_without_atoms_is_passed_over(adapter, model, x):
    """A LoRA may change nothing at a Linear that it names."""
    first = next(iter(adapter.sites.values()))
    first.keep(torch.zeros(first.atoms, dtype=torch.bool))
    stats = ImportanceStats(moments=True)
    with adapter.attach(model) as attachment, stats.collect(attachment):
        model(x)
    stats.to_importance(adapter)
    assert first.key not in stats.site_keys and all(bool((site.importance > 0).any()) for site in list(adapter.sites.values())[1:])
