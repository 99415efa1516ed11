"""SparseDict in AUTOMATIC1111 and the Forges: hands the pack's parts to the host. All else is in webui_host/."""

import importlib.util
import sys
from pathlib import Path

import torch
from modules import script_callbacks, scripts, shared

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "sparsedict_extension"  # a name of its own: the host's Python may have the package `sparsedict` too


def load_package() -> None:
    """The folder above this file as a package. It is not put on sys.path: its folders have common names."""
    if PACKAGE in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(PACKAGE, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)


OLDEST_TORCH = (2, 4)  # as in pyproject.toml
if tuple(int(part) for part in torch.__version__.split(".")[:2]) < OLDEST_TORCH:
    raise RuntimeError(f"SparseDict needs PyTorch {'.'.join(map(str, OLDEST_TORCH))} or newer, this web UI has {torch.__version__}; its tags do nothing here")
load_package()
host = importlib.import_module(f"{PACKAGE}.webui_host.host")


class SparseDictScript(scripts.Script):
    """The panel, which is always there."""

    def title(self):
        return "SparseDict"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return host.build_panel("img2img" if is_img2img else "txt2img")

    def before_process(self, p, *args):
        host.add_tags(p, *args)


host.register(script_callbacks, shared)
