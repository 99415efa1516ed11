"""What a front end sees: stock graphs with our nodes, refusals in one sentence, clients beside each other."""

from __future__ import annotations


def test_the_pack_loads_without_a_word_of_complaint(server):
    assert "IMPORT FAILED" not in server.log
    assert not [line for line in server.log.splitlines() if "SparseDict" in line and "seconds:" not in line]
