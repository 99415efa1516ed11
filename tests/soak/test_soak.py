"""A bounded part of `dev.py soak`: 20,000 bad files, 1,000 cycles. Kills and full disks are in tests/trainer."""

from __future__ import annotations

import pytest
import torch

from sparsedict.tools.soak.__main__ import BEGIN, END, PAGE, table
from sparsedict.tools.soak.bad_files import bad_files
from sparsedict.tools.soak.cycles import cycles
from sparsedict.tools.soak.row import Row

torch.set_num_threads(1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_bad_files(seed):
    """Two halves, for two workers."""
    row, ways = bad_files(10_000, seed=seed)
    assert row.tried == 10_000 and not row.violations, row.violations[:5]
    assert ways["refused"] > 5000 and ways["loaded"] > 500 and min(ways[way] for way in ("pruned", "composed", "saved again", "attached")) > 50


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
