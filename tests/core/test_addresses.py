"""Addresses: the grammar, what is ambiguous, what is not there, and the way back."""

from __future__ import annotations

import pytest
import torch
from core.tiny_adapters import make_adapter

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.addresses import format_address, format_masks, parse_addresses, resolve, resolve_layers
from sparsedict.sparsedict_core.compose import compose
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.errors import AddressError
from sparsedict.sparsedict_core.prune import prune
from sparsedict.sparsedict_core.selection import Selection, select
from sparsedict.sparsedict_core.site import SiteName, SparseSite


@pytest.fixture
def joint() -> SparseAdapter:
    """Layers 0 and 1 with streams image and text, layer 2 with one site."""
    names = [SiteName(f"b.{i}.{s}", i, s) for i in (0, 1) for s in ("image", "text")] + [SiteName("b.2", 2)]
    config = AdapterConfig(atoms=20, rank=None)
    return SparseAdapter([SparseSite.create(name, 6, 5, config) for name in names], config)


def ids(adapter, text):
    return {key: adapter.sites[key].atom_ids[mask].tolist() for key, mask in resolve(adapter, text).items() if mask.any()}


def test_grammar(joint):
    assert ids(joint, "L2[7]") == {"b.2": [7]}
    assert ids(joint, " L2[0-3, 5] , l0.text[ 1 ]") == {"b.0.text": [1], "b.2": [0, 1, 2, 3, 5]}
    assert set(ids(joint, "L0-L1")) == set(ids(joint, "L0-1")) == {"b.0.image", "b.0.text", "b.1.image", "b.1.text"}
    assert set(ids(joint, "L0-L1.image")) == {"b.0.image", "b.1.image"}
    assert ids(joint, "L0-L1.image[4]") == {"b.0.image": [4], "b.1.image": [4]}
    assert set(ids(joint, "L1")) == {"b.1.image", "b.1.text"}
    assert resolve_layers(joint, "L0.text,L2") == {"b.0.text", "b.2"}
    assert parse_addresses("a-b:L1[2]")[0].member == "a-b"


BAD = {
    "L99[0]": "no layer L99; the layers are L0-L2",
    "L2[9-2]": "runs backwards",
    "L3-L1": "runs backwards",
    "L2[": "expected an atom number at position 4, found the end",
    "L2[]": "expected an atom number",
    "L2[1": "expected a comma or ]",
    "L2[1]]": "expected a comma or the end at position 6",
    "L": "expected a layer",
    "": "expected a layer",
    "17": "expected a layer",
    "L2,": "expected a layer",
    "L0.": "expected a stream",
    "L2[-1]": "expected an atom number",
    "L2[1.5]": "expected a comma",
    "L2[99999999999]": "expected an atom number",
    "L0[3]": r"ambiguous; write one of L0\.image\[…\], L0\.text\[…\]",
    "L0.cross[3]": "the streams are image, text",
    "L2.text": "no stream 'text'",
    "L2[20]": "L2 has no atom 20; its atoms are 0-19",
    "L2[18-25,30-40]": "no atom from 30 to 40",
    "cat:L2[1]": "not composed",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_addresses_say_what_and_where(joint, text):
    with pytest.raises(AddressError, match=BAD[text]):
        resolve(joint, text)


def test_layers_take_no_atoms(joint):
    with pytest.raises(AddressError, match="leave the bracket out"):
        resolve_layers(joint, "L2[1]")


def test_an_address_is_for_life_and_streams_stay_known(joint):
    pruned = prune(joint, select(joint, Selection(atoms="L0.text[3,9],L2[0-4,17]")))
    assert ids(pruned, "L2[17]") == {"b.2": [17]}
    assert ids(pruned, "L2[3-18]") == {"b.2": [3, 4, 17]}
    assert format_address(pruned, "b.2", 5) == "L2[17]"
    assert format_address(pruned, "b.0.text", 1) == "L0.text[9]"
    with pytest.raises(AddressError, match="its atoms are 0-4,17"):
        resolve(pruned, "L2[5]")
    with pytest.raises(AddressError, match="ambiguous"):
        resolve(pruned, "L0[3]")
    with pytest.raises(AddressError, match="no atoms left"):
        resolve(pruned, "L1.image[0]")
    again = prune(pruned, select(pruned, Selection(atoms="L2[17]")))
    assert ids(again, "L2[17]") == {"b.2": [17]}


def test_members(joint):
    composed = compose([("cat", joint, 1.0), ("sty", joint, 1.0)])
    assert ids(composed, "sty:L2[3]") == {"sty:b.2": [3]}
    assert set(ids(composed, "L2")) == {"cat:b.2", "sty:b.2"}
    assert format_address(composed, "cat:b.0.text", 4) == "cat:L0.text[4]"
    with pytest.raises(AddressError, match=r"ambiguous; write one of cat:L2\[…\], sty:L2"):
        resolve(composed, "L2[3]")
    with pytest.raises(AddressError, match="its members are cat, sty"):
        resolve(composed, "dog:L2[3]")


@pytest.mark.parametrize("seed", range(8))
def test_masks_to_addresses_and_back(model, joint, seed):
    generator = torch.Generator().manual_seed(seed)
    adapter = (joint, compose([("a", joint, 1.0), ("b", joint, 0.5)]), make_adapter(model))[seed % 3]
    masks = {key: torch.rand(site.atoms, generator=generator) < seed / 7 for key, site in adapter.sites.items()}
    text = format_masks(adapter, masks)
    if not text:
        assert seed == 0
        return
    found = resolve(adapter, text)
    assert all(torch.equal(found[key], masks[key]) for key in masks)
