"""The command line in this process: `cli("prune", …)` gives its exit code, stdout and stderr."""

from dataclasses import dataclass

import pytest
from toy_adapters import toy_adapter

from sparsedict.sparsedict_core import save


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys):
    from sparsedict.cli.app import run

    def call(*arguments):
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def refused(cli, tmp_path):
    """Run a command that must fail as a user's mistake: exit code 1, one line on stderr, no trace, no new file."""

    def call(*arguments, folder=tmp_path):
        before = sorted(folder.rglob("*"))
        result = cli(*arguments)
        assert result.code == 1, (result.out, result.err)
        assert result.err.startswith("Error: ") and result.err.count("\n") == 1, result.err
        assert "Traceback" not in result.err and "unexpected" not in result.err, result.err
        assert sorted(folder.rglob("*")) == before
        return result.err

    return call


@pytest.fixture
def adapter_file(tmp_path):
    """An adapter of 3 layers × 16 atoms, saved."""
    path = tmp_path / "toy.safetensors"
    save(toy_adapter(), path)
    return path
