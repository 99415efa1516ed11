"""The root as a package: small, found under its name, with every part of the tree inside."""

import subprocess
import sys
from pathlib import Path

import tomllib

import sparsedict

ROOT = Path(__file__).resolve().parents[2]


def test_importing_the_root_loads_nothing_heavy():
    code = "import sys, sparsedict; print([m for m in ('torch', 'click', 'PIL', 'diffusers', 'numpy') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert result.stdout.strip() == "[]", result.stderr


def test_the_version_is_said_once_in_each_place():
    assert f'version = "{sparsedict.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_setup_names_every_folder_of_code():
    """A new top-level folder with code must be listed in setup.py, or a wheel would lack it."""
    text = (ROOT / "setup.py").read_text()
    folders = [path.parent.name for path in ROOT.glob("*/__init__.py")]
    missing = [name for name in folders if f'"{name}"' not in text and name not in ("tests", "tools", "benchmarks")]
    assert not missing


def test_comfyuis_registry_finds_what_it_needs():
    comfy = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["comfy"]
    assert comfy["PublisherId"] and comfy["requires-comfyui"]
    assert "comfyui" not in comfy["DisplayName"].lower()  # the registry refuses the name in a name
    assert all((ROOT / comfy[name]).is_file() for name in ("Icon", "Banner"))


def test_what_the_manager_installs_never_touches_the_hosts_torch():
    names = [line.split(">")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert set(names) == {"safetensors", "numpy", "pillow", "matplotlib", "tqdm"}
