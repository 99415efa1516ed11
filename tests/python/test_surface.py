"""What `import sparsedict` offers, and what docs/python.md shows of it: one may not change without the other."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sparsedict

DOCS = Path(sparsedict.__file__).parent / "docs" / "python.md"
BLOCKS = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.S)


def test_the_names_are_those_that_are_listed():
    assert sparsedict.__all__ == [
        "Attached", "Attachment", "Callbacks", "ConceptData", "PRESETS", "Selection", "SparseAdapter", "SparseDictError", "TrainConfig", "TrainResult",
        "attached", "compose", "load", "open_backend", "prune", "read_metadata", "save", "select", "train",
    ]  # fmt: skip
    for name in sparsedict.__all__:
        assert getattr(sparsedict, name).__doc__ if not name.isupper() else getattr(sparsedict, name), name
    with pytest.raises(AttributeError, match="typo"):
        _ = sparsedict.typo


def test_importing_the_package_imports_nothing_heavy():
    program = "import sys, sparsedict; print([name for name in ('torch', 'numpy', 'PIL', 'diffusers') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "[]"


SIGNATURES = {
    "load": ["path"], "save": ["adapter", "path", "dtype", "overwrite", "moments"], "attached": ["model"], "prune": ["adapter", "result", "refit"],
    "select": ["adapter", "selection", "refit"], "train": ["config", "backend", "data", "callbacks"], "open_backend": ["model", "device", "dtype"],
    "SparseAdapter.attach": ["self", "model", "strength", "component", "resolve", "name"],
    "Attached.set_adapters": ["self", "names", "strengths"], "Attached.exchange": ["self", "name", "adapter"], "Attached.remove": ["self", "name"],
    "Attached.remove_all": ["self"], "Attached.enable": ["self"], "Attached.disable": ["self"], "Attachment.set_gains": ["self", "gains"], "Attachment.detach": ["self"],
}  # fmt: skip


@pytest.mark.parametrize("name", SIGNATURES)
def test_arguments_that_programs_name_stay(name):
    first, *rest = name.split(".")
    found = getattr(sparsedict, first)
    for part in rest:
        found = getattr(found, part)
    assert list(inspect.signature(found).parameters)[: len(SIGNATURES[name])] == SIGNATURES[name]


def test_the_page_shows_every_name_and_none_that_is_not_there():
    imported = {name.name for block in BLOCKS for node in ast.walk(ast.parse(block)) if isinstance(node, ast.ImportFrom) and node.module == "sparsedict" for name in node.names}
    assert imported <= set(sparsedict.__all__)
    page = DOCS.read_text(encoding="utf-8")
    assert [name for name in sparsedict.__all__ if f"`{name}" not in page and name not in imported] == []


BEFORE = """
import os, sys, warnings
import torch
from PIL import Image
torch.set_num_threads(1)
import tiny_pipelines
from sparsedict import PRESETS, SparseAdapter, save
from sparsedict.sparsedict_core import AdapterConfig, discover_sites
torch.manual_seed(0)
pipe = tiny_pipelines.sd15()
pipe.set_progress_bar_config(disable=True)
found = discover_sites(pipe)
for seed, name in enumerate(("zorp", "charcoal", "ink")):
    made = SparseAdapter.create(pipe.unet, found.sites, AdapterConfig(atoms=16, rank=4), found.component, seed, {"title": name, "base_family": "sd15", "trigger_words": [name]})
    for site in made.sites.values():
        site.importance += 1
    save(made, name + ".safetensors")
os.mkdir("photos")
Image.new("RGB", (32, 32), (200, 90, 30)).save("photos/a.png")
PRESETS["concept"] = {"steps": 2, "batch_size": 2, "quiet_samples": 2, "quiet_sampling_steps": 1, "atoms": 8, "rank": 4, "overwrite": True, "preview_every": 2}
"""


def test_the_page_s_programs_run(tmp_path):
    between = "\nfrom sparsedict import attached\nattached(pipe).remove_all()\n"
    script = tmp_path / "page.py"
    script.write_text(BEFORE + "\n".join(block + between for block in BLOCKS), encoding="utf-8")
    paths = [str(Path(__file__).parents[1]), *(path for path in sys.path if path)]
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}; import runpy; runpy.run_path({str(script)!r})"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
