"""The host's modules in this Python process, on the CPU, for tests, benchmarks and scripts; `comfy_host.py` brings the folder."""

from __future__ import annotations

import sys
from pathlib import Path

FOLDERS = ("custom_nodes", "input", "output", "temp", "user", "models")


def make_base(folder: Path) -> Path:
    """A base directory for the host, with what it expects to find there."""
    for name in FOLDERS:
        (folder / name).mkdir(exist_ok=True)
    return folder


def start(root: Path, base: Path) -> None:
    """`root`'s modules can be imported afterwards; its folders are under `base`. Once a process: the host keeps its settings in modules."""
    sys.path.insert(0, str(root))
    arguments = sys.argv
    # The host reads its arguments while it is imported, and only when told so.
    sys.argv = ["main.py", "--cpu", "--disable-metadata", "--base-directory", str(base)]
    try:
        import comfy.options

        comfy.options.enable_args_parsing()
        import comfy.cli_args
        import comfy.model_management
    finally:
        sys.argv = arguments
    # As the host's own start does, in this order: later imports rely on it, and nodes puts a folder with another `utils` in front.
    import utils.extra_config  # noqa: F401

    import nodes  # noqa: F401
