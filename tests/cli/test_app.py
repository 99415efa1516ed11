"""The overview, help, exit codes and the one place where errors become a line."""

import errno
import os
import subprocess
import sys

import click
import pytest

from sparsedict.cli import app
from sparsedict.cli.common import UserError
from sparsedict.sparsedict_core.errors import AddressError


@pytest.mark.parametrize("name", list(app.COMMANDS))
def test_every_command_has_help_with_examples_and_no_hidden_option(cli, name):
    result = cli(name, "--help")
    assert result.code == 0
    assert "Examples:" in result.out and f"sparsedict {name}" in result.out
    command = app.group.get_command(None, name)
    assert all(option.help for option in command.params if isinstance(option, click.Option))


def test_the_overview_lists_every_command(cli):
    result = cli("--help")
    assert result.code == 0 and all(name in result.out for name in app.COMMANDS)


def test_no_command_shows_help_and_is_wrong_usage(cli):
    assert cli().code == app.USAGE


@pytest.mark.parametrize("arguments", [["nonsense"], ["prune"], ["prune", "--nonsense"], ["generate", "x", "--seed", "much"]])
def test_wrong_usage_is_2(cli, arguments):
    result = cli(*arguments)
    assert result.code == app.USAGE and "Traceback" not in result.err


def test_version(cli):
    from sparsedict import __version__

    assert __version__ in cli("--version").out


def test_help_is_instant():
    """Asked of the imports and of the processor's time: the clock on the wall is also other processes' on a shared machine."""
    code = (
        "import sys, time; from sparsedict.cli.app import COMMANDS, run;"
        "run(['--help']); print(time.process_time(), file=sys.stderr); [run([name, '--help']) for name in COMMANDS];"
        "print([m for m in ('torch', 'numpy', 'PIL', 'matplotlib', 'diffusers') if m in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    seconds, heavy = result.stderr.splitlines()
    assert heavy == "[]" and float(seconds) < 0.5


def test_python_m():
    result = subprocess.run([sys.executable, "-m", "sparsedict", "prune"], capture_output=True, text=True, cwd="/")
    assert result.returncode == app.USAGE and "sparsedict prune" in result.stderr


FAILURES = [
    (AddressError("L99[0]: there is no layer 99."), "L99[0]: there is no layer 99."),
    (UserError("x exists"), "x exists"),
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.safetensors"), "No space left on device: a.safetensors (free"),
    (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "a"), "Permission denied: a"),
    (RuntimeError("CUDA out of memory. Tried to"), "out of memory: lower"),
    (ZeroDivisionError("two\nlines"), "unexpected ZeroDivisionError: two lines"),
]


@pytest.fixture
def failing(monkeypatch):
    """A `demo` command that raises what the test puts in."""

    def install(error):
        @click.command("demo")
        def command():
            raise error

        monkeypatch.setattr(app.LazyGroup, "get_command", lambda self, ctx, name: command)

    return install


@pytest.mark.parametrize("error, line", FAILURES)
def test_a_failure_is_one_line(cli, failing, error, line):
    failing(error)
    result = cli("demo")
    assert result.code == app.FAILED
    assert result.err.startswith(f"Error: {line}") and result.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [("--debug", "demo"), ("demo", "--debug")])
def test_debug_lets_the_trace_through(failing, arguments):
    failing(AddressError("L99[0]"))
    with pytest.raises(AddressError):
        app.run(list(arguments))


def test_an_interrupt_is_130(cli, failing):
    failing(KeyboardInterrupt())
    assert cli("demo").code == app.INTERRUPTED


def test_only_this_projects_warnings_are_shown(capsys):
    app.show_warning("made on another model", UserWarning, app.__file__, 1)
    app.show_warning("deprecated", FutureWarning, click.__file__, 1)
    assert capsys.readouterr().err == "Warning: made on another model\n"
