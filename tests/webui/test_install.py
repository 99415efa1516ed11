"""install.py as a program, as the hosts run it: what it would have installed. A package `pip` that only notes its arguments stands in for the real one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from webui.test_real_hosts import HOSTS, folder_of

PROJECT = Path(__file__).resolve().parents[2]
NOTES = "import sys; from pathlib import Path; Path(__file__).with_name('asked').open('a').write(' '.join(sys.argv[1:]) + '\\n')"
#: What a web UI's launch.py has for its extensions; test_a_real_web_ui runs theirs.
LAUNCH = """
import os, sys
def run_pip(command, desc=None, live=False):
    assert os.system(f'"{sys.executable}" -m pip {command} --prefer-binary') == 0
"""


def installed(folder, python=sys.executable, web_ui=None, requirements=None):
    """What pip was asked for, and what was printed. `web_ui` is a folder with a launch.py."""
    for name, text in (("pip/__init__.py", ""), ("pip/__main__.py", NOTES)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    program = PROJECT / "install.py"
    if requirements is not None:
        program = Path(shutil.copy(program, folder))
        (folder / "requirements.txt").write_text(requirements)
    path = os.pathsep.join(str(each) for each in (folder, web_ui) if each is not None)
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH", "PIP_INDEX_URL", "INDEX_URL")}
    run = subprocess.run([python, program], capture_output=True, text=True, env={**environment, "PYTHONPATH": path}, cwd=web_ui or folder)
    assert run.returncode == 0, run.stderr
    asked = folder / "pip" / "asked"
    return (asked.read_text().splitlines() if asked.exists() else []), run.stdout


@pytest.fixture
def web_ui(tmp_path):
    folder = tmp_path / "host"
    folder.mkdir()
    (folder / "launch.py").write_text(LAUNCH)
    return folder


MISSING = "# why\nsafetensors>=999\n\nnot-there>=1.2\nneither_there\n"


def test_in_a_web_ui_the_missing_is_installed_and_what_is_there_stays_in_its_version(tmp_path, web_ui):
    asked, _ = installed(tmp_path, web_ui=web_ui, requirements=MISSING)
    assert asked == ["install not-there>=1.2 neither_there --prefer-binary"]


def test_where_all_is_there_nothing_is_installed_and_nothing_said(tmp_path, web_ui):
    assert installed(tmp_path, web_ui=web_ui) == ([], "")
    assert installed(tmp_path) == ([], "")


def test_comfyuis_manager_is_told_and_installs_itself(tmp_path):
    asked, said = installed(tmp_path, requirements="not-there>=1.2\n")
    assert asked == [] and said.startswith("[SparseDict] not-there>=1.2 missing")


@pytest.mark.parametrize("host", list(HOSTS))
def test_a_real_web_ui_has_all_and_installs_by_its_own_pip(host, tmp_path):
    prepared = folder_of(host)
    python, root = prepared / "venv/bin/python", (prepared / "host").resolve()
    assert installed(tmp_path, python, root) == ([], "")
    asked, said = installed(tmp_path, python, root, "torch>=999\nnot-there>=1.2\n")
    assert asked == ["install not-there>=1.2 --prefer-binary"] and "Installing not-there" in said
