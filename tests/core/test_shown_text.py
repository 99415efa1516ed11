"""What a stranger's file says is shown, and does nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparsedict.sparsedict_core.errors import FileFormatError
from sparsedict.sparsedict_core.shown_text import MOST_SAID, escaped_json, escaped_values, shown

EVIL = "a\x1b]0;pwned\x07b\u202ec\u2028d\x9b31m\u200be\r\nf\x00g\ud800h\U000e0001"


def test_nothing_but_printable_characters_is_left():
    assert shown(EVIL).isprintable() and shown(EVIL).startswith("a\\x1b]0;pwned\\x07b\\u202ec\\u2028d\\x9b31m\\u200be\\r\\nf\\x00g\\ud800h\\U000e0001")


@pytest.mark.parametrize("text", ["zorp", "a zörp, 猫, 🐈 – “x”", "C:\\models\\new.safetensors", ""])
def test_ordinary_text_stays_as_it_is(text):
    assert shown(text) == text and escaped_json(text) == text


def test_as_in_the_browser():
    vectors = json.loads((Path(__file__).parents[1] / "vectors" / "shown_text.json").read_text(encoding="utf-8"))
    assert [shown(text) for text, _ in vectors] == [written for _, written in vectors]


def test_values_keep_their_form():
    assert escaped_values({"a\u202e": ["\x1b", 1, None, {"b": "ok"}]}) == {"a\\u202e": ["\\x1b", 1, None, {"b": "ok"}]}


def test_json_means_the_same():
    written = escaped_json(json.dumps({"a": [EVIL.replace("\ud800", ""), "猫"]}, indent=1, ensure_ascii=False))
    assert json.loads(written) == {"a": [EVIL.replace("\ud800", ""), "猫"]} and all(c.isprintable() or c == "\n" for c in written) and "猫" in written


def test_long_text_is_cut_in_its_middle():
    text = shown("b" * 100 + "x" * 100_000 + "end")
    assert len(text) < 300 and text.startswith("bbb") and text.endswith("end") and "99,903 more" in text


def test_every_error_is_escaped_and_bounded():
    error = str(FileFormatError(EVIL + "x" * 100_000))
    assert error.isprintable() and len(error) < MOST_SAID + 100
