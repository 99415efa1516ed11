"""Writes locales/en/nodeDefs.json from the nodes themselves and the settings on the help page of Train, and says what the other languages lack.

    COMFYUI_ROOT=… python -m sparsedict.tools.make_locales

The front end takes a node's texts from there, in the user's language. The other languages are written by hand.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

from .comfy_host import PROJECT, default_root
from .host_in_process import make_base, start

LOCALES = PROJECT / "locales"
TRAIN_PAGE = PROJECT / "web" / "docs" / "SparseDictTrain.md"


def definitions() -> dict[str, Any]:
    """Node id → names and tooltips, in the front end's shape. The host must be importable."""
    from ..nodes import SparseDictExtension

    found = {}
    for node in asyncio.run(SparseDictExtension().get_node_list()):
        schema = node.GET_SCHEMA()
        entry: dict[str, Any] = {"display_name": schema.display_name, "description": schema.description}
        if schema.inputs:
            entry["inputs"] = {key.replace(".", "_"): texts for item in schema.inputs for key, texts in _inputs(item)}  # as the front end looks them up
        entry["outputs"] = {str(number): _texts(item) for number, item in enumerate(schema.outputs or [])}
        found[schema.node_id] = entry
    return found


def _inputs(item: Any) -> list[tuple[str, dict[str, str]]]:
    """(id, texts) of an input, or of all that one that grows can have."""
    names = getattr(getattr(item, "template", None), "names", None)
    if names is None:
        return [(item.id, _texts(item))]
    return [(f"{item.id}.{name}", {**_texts(item), "name": name.replace("_", " ")}) for name in names]


def _texts(item: Any) -> dict[str, str]:
    texts = {"name": item.display_name or item.id.replace("_", " ")}
    return {**texts, "tooltip": item.tooltip} if item.tooltip else texts


def with_settings(page: str) -> str:
    """The help page with the settings as they are."""
    from ..trainer.config import TrainConfig
    from ..trainer.options import help_table

    before, begin, rest = page.partition("trainer/config.py -->\n")
    return f"{before}{begin}\n{help_table(TrainConfig)}\n{rest[rest.index('<!-- end -->'):]}"


def gaps(wanted: dict[str, Any], given: dict[str, Any], at: str = "") -> list[str]:
    """Where two trees of texts differ in their keys: "−" is missing, "+" has nothing behind it any more."""
    lines = [f"− {at}{key}" for key in wanted.keys() - given.keys()] + [f"+ {at}{key}" for key in given.keys() - wanted.keys()]
    for key in wanted.keys() & given.keys():
        if isinstance(wanted[key], dict):
            lines += gaps(wanted[key], given[key], f"{at}{key}.")
    return sorted(lines)


def read(language: str) -> dict[str, Any]:
    path = LOCALES / language / "nodeDefs.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        start(default_root(), make_base(Path(folder)))
        wanted = definitions()
    path = LOCALES / "en" / "nodeDefs.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(wanted, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    TRAIN_PAGE.write_text(with_settings(TRAIN_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    for language in sorted(folder.name for folder in LOCALES.iterdir() if folder.is_dir()):
        for line in gaps(wanted, read(language)):
            print(f"{language}: {line}")


if __name__ == "__main__":
    main()
