"""What a stranger's file says reaches a terminal or a program as text, and as nothing else."""

import json
from pathlib import Path

from toy_adapters import toy_adapter

from sparsedict.sparsedict_core.addresses import site_labels
from sparsedict.sparsedict_core.file_format import save
from sparsedict.tools.soak import hostile

EVIL = "\x1b]0;pwned\x07\nError: this file is damaged\u202e"


def evil_file(path):
    adapter = toy_adapter()
    adapter.metadata.update(base_family="toy" + EVIL, title=EVIL, trigger_words=["zorp" + EVIL, "\x9b31m"], note={"a": [EVIL, float("nan")]})
    save(adapter, path)
    return path


def test_a_terminal_is_told_what_is_there(cli, tmp_path):
    result = cli("inspect", evil_file(tmp_path / "a.safetensors"))
    assert result.code == 0 and result.out.replace("\n", "").isprintable()
    assert "base toy\\x1b]0;pwned\\x07\\nError: this file is damaged\\u202e, encoder" in result.out


def test_json_is_json_and_harmless_in_a_terminal(cli, tmp_path):
    result = cli("inspect", evil_file(tmp_path / "a.safetensors"), "--json")
    assert result.out.replace("\n", "").isprintable()
    found = json.loads(result.out, parse_constant=lambda name: 1 / 0)
    assert found["metadata"]["title"] == EVIL and found["metadata"]["note"] == {"a": [EVIL, None]}


def test_an_error_is_one_short_printable_line(cli, refused, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(hostile.adapter_file(1, fields={"encoder": EVIL + "x" * 100_000}))
    result = cli("inspect", path)
    assert result.code == 1 and result.err.rstrip("\n").isprintable() and len(result.err) < 700


def test_a_map_of_any_ids_is_small_and_shows_every_atom(cli, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(hostile.CASES["one atom of the highest id in 60 sites"]())
    result = cli("inspect", path, "--picture", tmp_path / "a.png")
    assert result.code == 0 and (tmp_path / "a.png").stat().st_size < 200_000


def test_many_sites_are_labelled_once(monkeypatch):
    """1,120 honest sites cost 9 s when each asked for all the others."""
    from sparsedict.cli import inspect

    calls = []
    monkeypatch.setattr("sparsedict.sparsedict_core.addresses.site_labels", lambda adapter: calls.append(1) or site_labels(adapter))
    adapter = toy_adapter(layers=20)
    report = inspect.describe(Path(__file__), adapter, {"encoder": "quantile"}, None)
    inspect.as_text(report, adapter, 12)
    assert len(report["sites"]) == 20 and len(calls) <= 3
