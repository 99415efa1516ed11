"""The real host: in this process (`comfy`) and as a server (`server`). Both need the folder that `dev.py comfy` makes.

The host's folder goes first on sys.path. Its package `comfy` and this folder are two parts of one namespace package; a
file here must therefore not take the name of a file in the host's comfy/.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

PROJECT = Path(__file__).resolve().parents[2]


def find_host() -> Path | None:
    """The host named by COMFYUI_ROOT, else the one that dev.py makes; None where there is none."""
    root = Path(os.environ.get("COMFYUI_ROOT") or PROJECT / ".host" / "comfyui-0.3.75")
    return root.resolve() if (root / "main.py").exists() else None


@pytest.fixture(scope="session")
def host_root() -> Path:
    root = find_host()
    if root is None:
        pytest.skip("no ComfyUI here: `python3 dev.py comfy --setup-only` makes one (dev.py test does it by itself), or set COMFYUI_ROOT")
    return root


@pytest.fixture(scope="session")
def comfy(host_root: Path, tmp_path_factory: pytest.TempPathFactory):
    """The host's modules can be imported, on the CPU, with input, output, models and user folders of their own."""
    if "comfy.cli_args" not in sys.modules:
        base = make_base(tmp_path_factory.mktemp("host"))
        sys.path.insert(0, str(host_root))
        arguments = sys.argv
        sys.argv = ["main.py", "--cpu", "--disable-metadata", "--base-directory", str(base)]
        try:
            import comfy.options

            comfy.options.enable_args_parsing()
            import comfy.cli_args
            import comfy.model_management
            import folder_paths
        finally:
            sys.argv = arguments
        assert str(comfy.model_management.get_torch_device()) == "cpu"
        assert folder_paths.base_path == str(base)
        import nodes  # noqa: F401  (as the host's own start does; later imports rely on it)
    import comfy

    torch.set_num_threads(1)
    return comfy


@pytest.fixture(scope="session")
def server(host_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """A host of its own process with the pack in it, shared by all tests of one worker."""
    from host import Host

    with Host(host_root, make_base(tmp_path_factory.mktemp("server"))) as host:
        yield host


def make_base(folder: Path) -> Path:
    """A base directory for the host, with what it expects to find there."""
    for name in ("custom_nodes", "input", "output", "temp", "user", "models"):
        (folder / name).mkdir(exist_ok=True)
    return folder
