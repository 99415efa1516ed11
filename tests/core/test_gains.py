"""Gains in words, gains baked in, and tokens on the picture's grid."""

import pytest
import torch

from sparsedict.sparsedict_core.errors import AddressError, SiteError
from sparsedict.sparsedict_core.gains import alive, bake, parse_gains, resolve_gains
from sparsedict.sparsedict_core.token_grid import has_places, on_grid, thumbnail


def test_gains_are_parsed_in_order():
    assert parse_gains("L17[137]=1.5, L3=0") == [("L17[137]", 1.5), ("L3", 0.0)]
    assert parse_gains("L3[0-15,40] = -1e-1;L4-L9,L2=.5\n cat:L1.text=+2") == [("L3[0-15,40]", -0.1), ("L4-L9,L2", 0.5), ("cat:L1.text", 2.0)]
    assert parse_gains("  ") == []


@pytest.mark.parametrize("bad", ["L3", "L3=", "L3=x", "=2", "L3=1 L4=2", "L3[=1", "L3=nan", "L3=1e999", "L3=-1e999", "L3=1=2", ",L3=1"])
def test_what_sets_no_gain_is_an_error(bad):
    with pytest.raises(AddressError):
        parse_gains(bad)


def test_baking_does_what_the_gains_did(adapter, model, x):
    key = next(iter(adapter.sites))
    gains = {key: torch.linspace(-1, 2, adapter.sites[key].atoms)}
    gains[key][3] = 0
    before = {name: tensor.clone() for name, tensor in adapter.state_dict().items()}
    with adapter.attach(model) as attachment:
        attachment.set_gains(gains)
        wanted = model(x)
    baked = bake(adapter, gains)
    with baked.attach(model):
        assert torch.allclose(model(x), wanted, atol=1e-5)
    site = baked.sites[key]
    assert site.atoms == adapter.sites[key].atoms - 1 and 3 not in site.atom_ids
    assert site.moments.shape == (site.atoms, site.atoms)
    ratio = site.importance / torch.cat([adapter.sites[key].importance[:3], adapter.sites[key].importance[4:]])
    assert torch.allclose(ratio, torch.cat([gains[key][:3], gains[key][4:]]).abs(), atol=1e-5)
    assert baked.metadata["lineage"][-1] == {"operation": "gains", "removed": 1, "scaled": int((gains[key][gains[key] != 0] != 1).sum())}
    assert all(torch.equal(tensor, before[name]) for name, tensor in adapter.state_dict().items())


def test_nothing_to_bake_changes_nothing(adapter, model, x):
    baked = bake(adapter, None)
    assert baked.metadata.get("lineage") == adapter.metadata.get("lineage") and baked.atom_count == adapter.atom_count
    assert all(bool(mask.all()) for mask in alive(adapter, None).values())


def test_gains_of_another_adapter_are_refused(adapter):
    with pytest.raises(SiteError, match="do not fit the adapter at elsewhere"):
        bake(adapter, {"elsewhere": torch.ones(3)})
    key, site = next(iter(adapter.sites.items()))
    with pytest.raises(SiteError, match="a gain is not finite"):
        bake(adapter, {key: torch.full((site.atoms,), float("nan"))})


def test_the_last_gain_counts(adapter):
    gains = resolve_gains(adapter, "L0=2, L0[1]=3")
    first = next(iter(gains.values()))
    assert first[0] == 2 and first[1] == 3


def test_text_tokens_may_be_before_or_after_the_pictures():
    tokens = torch.arange(20.0)
    assert on_grid(tokens, (4, 4))[0, 0] == 4
    assert on_grid(tokens, (4, 4), text_first=False)[0, 0] == 0
    frames = on_grid(torch.arange(32.0), (2, 4, 4))
    assert frames.shape == (4, 4) and frames[0, 0] == 8
    assert on_grid(torch.ones(2), (2, 256, 256)) is None


def test_a_map_is_made_small_enough_to_be_shown():
    grid = torch.zeros(70, 40)
    grid[:3, :3] = 4.0
    grid[-1, -1] = 8.0
    small = thumbnail(grid)
    assert small.shape == (24, 14) and small.dtype == torch.uint8
    assert small[0, 0] == 128 and small[-1, -1] == 255 and int((small > 0).sum()) == 2  # the last place stands alone in its window
    assert torch.equal(thumbnail(torch.tensor([[0.0, 1.0], [2.0, 4.0]])), torch.tensor([[0, 64, 128, 255]], dtype=torch.uint8).reshape(2, 2))
    assert not thumbnail(torch.zeros(3, 3)).any()


def test_which_sites_are_places_of_a_picture():
    places = [None, "self", "cross", "image", "image.q", "cross.q", "self.k", "image.ff.up", "ff.down", "dual.v"]
    assert all(map(has_places, places))
    assert not any(map(has_places, ["text", "text.q", "text.ff.up", "cross.k", "cross.v", "cross.add_k", "image.add_v"]))
