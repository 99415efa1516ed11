"""What a stranger's file says reaches a terminal or a program as text, and as nothing else."""

import ast
import json
import os
from pathlib import Path

import pytest
from toy_adapters import toy_adapter

from sparsedict.cli import inspect as inspect_command
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


NAME = "ev\u202eil\x1b[2J\nError: it is damaged"  # of a file: no system forbids it but Windows


@pytest.fixture
def evil_name(tmp_path):
    if os.name == "nt":
        pytest.skip("Windows has no such names")
    save(toy_adapter(), path := tmp_path / f"{NAME}.safetensors")
    return path


@pytest.mark.parametrize(
    "arguments, code",
    [
        ("inspect FILE", 0), ("inspect FILE --top 2", 0), ("inspect FILE --json", 0), ("prune FILE --keep 50% --out OUT", 0), ("prune FILE --top 1 --no-moments --out OUT", 0),
        ("compose a=FILE b=FILE --out OUT", 0), ("prune FILE --keep 50% --out FILE", 1), ("inspect FILE.missing", 1), ("cache --clear", 0),
        ("inspect FILE FILE", 2), ("sweep FILE a FILE", 2), ("FILE", 2), ("prune FILE --FILE", 2),
    ],
)  # fmt: skip
def test_a_files_own_name_is_text_too(cli, evil_name, monkeypatch, arguments, code):
    """A pattern such as *.safetensors hands over whatever lies in a folder of downloads."""
    monkeypatch.setenv("SPARSEDICT_CACHE", str(evil_name.with_name(NAME)))
    evil_name.with_name(NAME).mkdir()
    names = {"FILE": str(evil_name), "OUT": str(evil_name.with_name(f"small {NAME}.safetensors"))}
    told = cli(*(argument.replace("FILE", names["FILE"]).replace("OUT", names["OUT"]) for argument in arguments.split()))
    assert told.code == code, told.err
    lines = (told.out + told.err).splitlines()
    assert lines and all(line.isprintable() for line in lines)
    assert not any(line.startswith("Error: it is") for line in lines) and "\\u202e" in told.out + told.err


def test_every_line_of_the_command_line_goes_the_same_way():
    """Else the next command prints a name raw."""
    folder = Path(inspect_command.__file__).parent
    for path in folder.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        free = {name for function in ast.walk(tree) if isinstance(function, ast.FunctionDef) and function.name in ("say", "print_json") for name in ast.walk(function)}
        for node in set(ast.walk(tree)) - free:
            assert not (isinstance(node, ast.Attribute) and node.attr in ("echo", "secho")), f"{path.name}:{node.lineno}: use say()"
            assert not (isinstance(node, ast.Name) and node.id == "print"), f"{path.name}:{node.lineno}: use say()"


def test_a_run_tells_names_as_text(capsys):
    from sparsedict.host_shared.run_events import RunEvents
    from sparsedict.host_shared.run_state import RunState
    from sparsedict.trainer.progress import ConsoleProgress

    sent, state = [], RunState()
    events = RunEvents(state)
    events.send = sent.append
    for callbacks in (ConsoleProgress(), events):
        callbacks.on_data([f"pictures: 1 in {NAME}", f"  left out: {NAME}"])
        callbacks.on_stage("training", NAME)
        callbacks.on_checkpoint(1, Path(NAME))
        callbacks.on_warning(f"{NAME} is damaged")
        callbacks.on_stopped(1, 2, Path(NAME), Path(NAME))
    events.ended(NAME)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 5 and all(line.isprintable() for line in printed)
    assert len(events.lines) == 6 and all(line.isprintable() for line in events.lines)
    # The path of a checkpoint or an adapter is for programs; who shows it makes it fit.
    assert len(sent) == 4 and all(data.get(key, "").isprintable() for data in sent for key in ("detail", "text"))


def test_a_map_of_any_ids_is_small_and_shows_every_atom(cli, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(hostile.CASES["one atom of the highest id in 60 sites"]())
    result = cli("inspect", path, "--picture", tmp_path / "a.png")
    assert result.code == 0 and (tmp_path / "a.png").stat().st_size < 200_000


def test_many_sites_are_labelled_once(monkeypatch):
    """1,120 honest sites cost 9 s when each asked for all the others."""
    calls = []
    monkeypatch.setattr("sparsedict.sparsedict_core.addresses.site_labels", lambda adapter: calls.append(1) or site_labels(adapter))
    adapter = toy_adapter(layers=20)
    report = inspect_command.describe(Path(__file__), adapter, {"encoder": "quantile"}, None)
    inspect_command.as_text(report, adapter, 12)
    assert len(report["sites"]) == 20 and len(calls) <= 3
