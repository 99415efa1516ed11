"""What a user interface is told of an adapter's atoms."""

import json

import torch

from sparsedict.sparsedict_core.addresses import site_label
from sparsedict.sparsedict_core.atom_table import atom_table
from sparsedict.sparsedict_core.selection import rank_atoms


def test_the_table_says_what_the_adapter_holds(adapter):
    adapter.metadata.update(title="A thing", trigger_words=["zorp"])
    table = json.loads(json.dumps(atom_table(adapter)))
    assert table["title"] == "A thing" and table["trigger_words"] == ["zorp"] and table["atoms"] == adapter.atom_count
    assert [site["label"] for site in table["sites"]] == [site_label(adapter, site) for site in adapter.sites.values()]
    for row, site in zip(table["sites"], adapter.sites.values()):
        assert row["atom_ids"] == site.atom_ids.tolist()
        assert torch.equal(torch.tensor(row["importance"]), site.importance)
        assert torch.allclose(torch.tensor(row["firing"]), site.firing, rtol=1e-3)
    assert table["has_moments"] and table["greedy"] is None


def test_the_greedy_order_counts_atoms_through_all_sites(adapter):
    table = atom_table(adapter, greedy=True)
    first = dict(zip(adapter.sites, [0, 24, 48]))
    assert table["greedy"]["order"] == [first[key] + row for key, row in rank_atoms(adapter, "greedy")]
    assert abs(table["greedy"]["energy"][-1] - 1) < 1e-3


def test_without_moments_there_is_no_greedy_order(adapter):
    for site in adapter.sites.values():
        site.moments = None
        site.firing = None
    table = atom_table(adapter, greedy=True)
    assert table["greedy"] is None and not table["has_moments"] and table["sites"][0]["firing"] is None
