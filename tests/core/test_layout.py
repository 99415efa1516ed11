"""What the core may be: torch and safetensors only, small files, nothing that runs what it reads."""

from __future__ import annotations

import ast
import graphlib
import sys
from pathlib import Path

import pytest

import sparsedict.sparsedict_core as core

FILES = sorted(Path(core.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_file(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        else:
            names = []
        for name in names:
            root = name.split(".")[0]
            assert root in ("torch", "safetensors") or root in sys.stdlib_module_names, name
            assert root not in ("pickle", "marshal", "shelve")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec", "compile", "__import__")


def test_no_file_is_too_long_to_be_read_at_once():
    root = Path(core.__file__).parent.parent
    folders = [root / "tests", *(path.parent for path in root.glob("*/__init__.py"))]
    files = [*root.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]
    assert {path.name: count for path in files if (count := len(path.read_text(encoding="utf-8").splitlines())) > 400} == {}


def test_every_public_name_is_documented():
    for name in (n for n in vars(core) if not n.startswith("_")):
        value = getattr(core, name)
        if callable(value):
            assert value.__doc__, name


@pytest.mark.parametrize("package", ["sparsedict_core", "trainer"])
def test_no_import_goes_in_a_circle(package):
    """Also not one that a function hides until it is called. What only a type checker reads does not count."""
    root = Path(core.__file__).parent.parent
    imports: dict[str, set[str]] = {}
    for path in (root / package).rglob("*.py"):
        folder = path.parent.relative_to(root).parts
        module = ".".join(folder if path.name == "__init__.py" else (*folder, path.stem))
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                node.body = [ast.Pass()]
        found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
        for node in found:
            base = ".".join([*folder[: len(folder) - node.level + 1], *([node.module] if node.module else [])])
            imports.setdefault(module, set()).update([base] * bool(node.module), (f"{base}.{alias.name}" for alias in node.names))
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError, with the circle
