"""A bounded part of `dev.py soak`: 5,000 bad files, 1,000 cycles, prompts and requests in ComfyUI. Kills and full disks are in tests/dev."""

from __future__ import annotations

import pytest
import torch
from hypothesis import strategies as st

from sparsedict.tools.soak.__main__ import BEGIN, END, PAGE, table
from sparsedict.tools.soak.bad_files import bad_files
from sparsedict.tools.soak.cycles import cycles
from sparsedict.tools.soak.hunt import hunt
from sparsedict.tools.soak.in_host import InHost
from sparsedict.tools.soak.made_files import made_files
from sparsedict.tools.soak.row import Row

torch.set_num_threads(1)


@pytest.mark.slow
def test_bad_files():
    row, ways = bad_files(4_000)
    assert row.tried == 4_000 and not row.violations, row.violations[:5]
    assert ways["refused"] > 2000 and ways["loaded"] > 200 and min(ways[way] for way in ("pruned", "composed", "saved again", "attached")) > 20


@pytest.mark.slow
def test_made_files():
    row, ways = made_files(1000)
    assert row.tried >= 1000 and not row.violations, row.violations[:1]
    assert ways["refused"] > 200 and ways["loaded"] > 200 and min(ways[way] for way in ("composed", "saved again", "attached")) > 20


@pytest.mark.slow
def test_in_the_host():
    """Prompts, with interrupts and unloaded models, and requests."""
    found = InHost(prompts=24, requests=250).rows()
    if "none" in found[0][0].name:
        pytest.skip(found[0][0].name)
    assert [row.tried for row, _ in found] == [24, 250]
    assert not any(row.violations for row, _ in found), [row.violations[:1] for row, _ in found]


def test_what_does_not_hold_is_found():
    """The hunt keeps the least input, counts all, and goes on."""
    row = Row("numbers")
    hunt(row, st.integers(0, 1000), lambda number: "too many" if number > 7 else "", 400, None, 1)
    assert row.tried >= 400 and row.violations and all(text.endswith(" 8: too many") for text in row.violations)


@pytest.mark.slow
def test_cycles():
    row, _ = cycles(1000)
    assert row.tried == 1000 and not row.violations, row.violations[:5]


def test_the_table_says_what_did_not_hold():
    text = table([Row("a", 10), Row("b", 5, ["x"])], ["fine", ""], 3.4)
    assert "| a | 10 | 10 | 0 | fine |" in text and "| b | 5 | 4 | 1 |  |" in text and "1 times something did not hold" in text
    assert "Nothing was lost." in table([Row("a", 1)], [""], 1)
    page = PAGE.read_text(encoding="utf-8")
    assert page.index(BEGIN) < page.index(END)
