"""What hosts share knows none of them, and a host's own folders know no other host."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
#: Packages of the hosts, as their programs import them.
HOSTS = {"comfy", "comfy_api", "comfy_extras", "folder_paths", "server", "nodes", "modules", "modules_forge", "backend", "launch", "gradio"}
WEB_UI = {"modules", "modules_forge", "backend", "launch", "gradio"}
COMFYUI = HOSTS - WEB_UI
#: Folder → packages of hosts that it may not import, and the project's own folders that it may.
RULES = {
    "host_shared": (HOSTS, {"sparsedict_core", "trainer", "pictures", "host_shared"}),
    "webui_host": (COMFYUI, {"sparsedict_core", "trainer", "pictures", "host_shared", "webui_host"}),
    "nodes": (WEB_UI, {"sparsedict_core", "trainer", "pictures", "host_shared", "comfyui_host", "demo_model", "lora", "nodes"}),
}
FILES = [path for folder in RULES for path in sorted((PROJECT / folder).glob("*.py"))]


def imported(tree: ast.AST, folder: str) -> tuple[set[str], set[str]]:
    """Packages from outside, and folders of the project."""
    outside, inside = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            outside |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            outside.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom) and node.level == 1:
            inside.add(folder)
        elif isinstance(node, ast.ImportFrom):
            inside |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
    return outside, inside


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_file(path):
    text = path.read_text(encoding="utf-8")
    tree, (forbidden, allowed) = ast.parse(text), RULES[path.parent.name]
    assert ast.get_docstring(tree) and len(text.splitlines()) <= 400
    outside, inside = imported(tree, path.parent.name)
    assert not outside & forbidden and inside <= allowed


def test_what_hosts_share_speaks_of_none_of_them():
    """In what a person may read: a sentence that names a node means nothing in a web UI. Docstrings of modules may say who stands on them."""
    for path in sorted((PROJECT / "host_shared").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documented = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
                words = set(node.value.replace(".", " ").replace(",", " ").lower().split())
                assert not words & {"node", "nodes", "comfyui", "workflow", "forge", "automatic1111", "graph"}, (path.name, node.value)
