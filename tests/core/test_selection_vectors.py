"""The core agrees with tests/vectors/selection.json, to which the front end is held as well."""

import json

import pytest
from vectors import make_selection

MADE = json.loads(json.dumps(make_selection.vectors()))
STORED = json.loads(make_selection.FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("part", ["addresses", "composed_addresses", "several_addresses", "layers", "selections"])
def test_the_core_means_what_the_vectors_say(part):
    for made, stored in zip(MADE[part], STORED[part], strict=True):
        assert made == stored, "run tests/vectors/make_selection.py if the rules have changed on purpose"


def test_the_vectors_are_of_the_same_adapters():
    def ids(table):
        return [(site["label"], site["atom_ids"]) for site in table["sites"]]

    assert ids(MADE["plain"]) == ids(STORED["plain"]) and ids(MADE["composed"]) == ids(STORED["composed"])
    assert MADE["plain"]["greedy"]["order"] == STORED["plain"]["greedy"]["order"]


def test_some_answers_by_hand():
    means = {row["text"]: row["means"] for row in STORED["addresses"]}
    assert means["L1[0-3,7]"]["atoms"] == [11, 12, 13, 14, 18]
    assert means["L0[1]"] == "refused" and means["L0.image[2]"]["atoms"] == [2]
    several = {row["text"]: row["means"] for row in STORED["several_addresses"]}
    assert several["L0.image[1]"] == {"atoms": [1], "shortest": "L0.image[1]"} and several["L0.image.q"]["atoms"] == [3, 4, 5]
    assert several["L0.ff"] == {"atoms": [6, 7, 8, 9, 10, 11], "shortest": "L0.ff.up,L0.ff.down"} and several["L0.ff[1]"] == "refused"
    assert several["L1[0]"] == "refused" and several["L1.out[0]"]["atoms"] == [12] and several["L0.im"] == "refused"
    assert means["L5[40-60]"] == {"atoms": [27, 29, 30], "shortest": "L5[40-41,60]"}
