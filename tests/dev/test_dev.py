"""dev.py decides rightly what to do with .venv, and passes arguments on. No second environment is made here."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def dev():
    spec = importlib.util.spec_from_file_location("project_dev", ROOT / "dev.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def clone(tmp_path):
    """A folder with only the files that decide the environment's content, under a name that is no Python identifier."""
    root = tmp_path / "my-clone 1"
    root.mkdir()
    for name in ("constraints.txt", "pyproject.toml", "setup.py"):
        (root / name).write_bytes((ROOT / name).read_bytes())
    return root


@pytest.fixture
def environment(dev, clone, monkeypatch):
    """An environment whose commands are recorded instead of run; making the venv leaves its Python behind."""
    made = dev.Environment(clone)
    made.commands = []

    def record(command, _):
        made.commands.append(command)
        if "venv" in command:
            made.python.parent.mkdir(parents=True, exist_ok=True)
            made.python.touch()

    monkeypatch.setattr(dev, "run_or_stop", record)
    monkeypatch.setattr(dev, "install", record)
    return made


def test_first_use_makes_everything_and_the_second_use_nothing(environment):
    assert environment.state() == "missing"
    environment.ensure()
    assert len(environment.commands) == 4
    assert environment.state() == "ready"
    environment.commands.clear()
    environment.ensure()
    assert environment.commands == []


def test_an_interrupted_environment_is_made_anew(environment, dev, monkeypatch):
    def interrupt(command, _):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dev, "install", interrupt)
        with pytest.raises(KeyboardInterrupt):
            environment.ensure()
    assert environment.state() == "broken"
    leftover = environment.folder / "leftover.txt"
    leftover.touch()
    environment.ensure()
    assert environment.state() == "ready" and not leftover.exists()


def test_changed_constraints_are_installed_in_place(environment, clone):
    environment.ensure()
    mine = environment.folder / "mine.txt"
    mine.touch()
    (clone / "constraints.txt").write_text("torch==2.13.0\n")
    assert environment.state() == "outdated"
    environment.commands.clear()
    environment.ensure()
    assert environment.state() == "ready" and mine.exists()
    assert not any("venv" in command for command in environment.commands)


def test_a_moved_clone_is_installed_again(environment, dev, clone):
    """The editable install records the folder's path."""
    environment.ensure()
    moved = clone.rename(clone.with_name("moved"))
    assert dev.Environment(moved).state() == "outdated"


def test_every_install_is_constrained_and_torch_comes_first_and_exact(environment):
    commands = [command for _, command in environment.steps()]
    assert all("-c" in command and str(environment.root / "constraints.txt") in command for command in commands)
    torch_step = next(number for number, command in enumerate(commands) if "torch==2.13.0" in command)
    assert all("setuptools" in command for command in commands[:torch_step])
    assert "-e" in commands[-1] and "--no-build-isolation" in commands[-1]


def test_constraints_pin_every_installed_package_without_local_parts(environment):
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(line.count("==") == 1 and not set("+@/ ") & set(line) for line in lines)
    assert {"torch==2.13.0", "torchvision==0.28.0", "comfyui_frontend_package==1.32.9"} <= set(lines)
    assert not any("torchvision" in argument for _, command in environment.steps() for argument in command)  # it is the host's alone


def test_a_failing_install_names_the_step_and_shows_why(dev, capfd):
    with pytest.raises(SystemExit, match="PyTorch"):
        dev.install([sys.executable, "-c", "import sys; print('no space'); sys.exit(1)"], "PyTorch")
    assert "no space" in capfd.readouterr().err


def test_an_install_shows_the_large_downloads_only(dev, capfd):
    lines = ["Collecting torch", "Downloading torch-2.13.0-cp311-linux.whl (190.2 MB)", "  Downloading zipp-4.1.2-py3.whl (10 kB)"]
    dev.install([sys.executable, "-c", f"print({chr(10).join(lines)!r})"], "packages")
    assert capfd.readouterr().out == "[dev]       torch-2.13.0 (190.2 MB)\n"


def test_pytest_gets_its_arguments(dev, environment):
    command = dev.pytest_command(environment, ["-k", "prune"])
    assert command[-3:] == ["-k", "prune", str(ROOT / "tests")] and "-n" in command
    assert dev.pytest_command(environment, ["-k", "cli"])[-1] == str(ROOT / "tests")
    assert dev.pytest_command(environment, ["tests/dev", "-n", "0"])[-3:] == ["tests/dev", "-n", "0"]


def test_usage_lists_the_commands_without_making_an_environment(dev, capsys, monkeypatch):
    monkeypatch.setattr(dev.Environment, "ensure", lambda self: pytest.fail("an environment was made"))
    assert dev.main(["--help"]) == 0
    assert all(name in capsys.readouterr().out for name in ("demo",)) and set(dev.COMMANDS) >= {"demo", "comfy", "test", "lint"}
    assert dev.main([]) == 2
    assert dev.main(["nonsense"]) == 2


def test_dev_py_needs_only_the_standard_library():
    code = (
        "import sys, runpy; runpy.run_path(sys.argv[1], run_name='dev');"
        "print([name for name in sys.modules if 'site-packages' in str(getattr(sys.modules[name], '__file__', ''))])"
    )
    result = subprocess.run([sys.executable, "-I", "-S", "-c", code, str(ROOT / "dev.py")], capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.strip() == "[]"


def test_the_type_checkers_link_leads_to_the_root(dev, tmp_path):
    environment = dev.Environment(ROOT, tmp_path / "venv")
    link = dev.package_link(environment)
    assert link.name == "sparsedict" and (link / "__init__.py").exists()
    assert dev.package_link(environment) == link


CHILD = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
try:
    (folder / "begun").touch()
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)
    (folder / "saved").touch()
"""
PARENT = """
import runpy, sys
run = runpy.run_path(sys.argv[1])["run"]
run([sys.executable, "-c", sys.argv[2], sys.argv[3]])
"""


@pytest.mark.skipif(os.name != "posix", reason="sends Ctrl-C to a group of processes")
def test_ctrl_c_leaves_a_command_time_to_save(tmp_path):
    def heeds_it():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the tests themselves may run in the background, where it is ignored

    command = [sys.executable, "-c", PARENT, str(ROOT / "dev.py"), CHILD, str(tmp_path)]
    parent = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heeds_it)
    while not (tmp_path / "begun").exists():
        assert parent.poll() is None
        time.sleep(0.02)
    os.killpg(parent.pid, signal.SIGINT)
    assert "KeyboardInterrupt" in parent.communicate()[1] and (tmp_path / "saved").exists()
