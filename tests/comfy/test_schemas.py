"""Every node explains itself: description, a tooltip on each input, a help page, and texts in each language."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

PROJECT = Path(__file__).resolve().parents[2]
LANGUAGES = ("en", "zh", "ja")


@pytest.fixture(scope="module")
def schemas(comfy):
    from sparsedict.nodes import SparseDictExtension

    return {schema.node_id: schema for schema in (node.GET_SCHEMA() for node in asyncio.run(SparseDictExtension().get_node_list()))}


def test_every_node_explains_itself(schemas):
    for name, schema in schemas.items():
        assert name.startswith("SparseDict"), name
        assert schema.display_name and schema.category.startswith("SparseDict"), name
        assert len(schema.description) > 30, name
        bare = [item.id for item in schema.inputs or [] if not item.tooltip]
        assert not bare, f"{name}: no tooltip on {bare}"


def test_every_node_has_a_help_page_and_every_page_a_node(schemas):
    pages = {path.stem: path.read_text(encoding="utf-8") for path in (PROJECT / "web" / "docs").glob("*.md")}
    assert pages.keys() == schemas.keys()
    for name, text in pages.items():
        assert text.startswith(f"# {schemas[name].display_name}\n"), name


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_there_in_each_language(schemas, language):
    from sparsedict.tools.make_locales import definitions, gaps, read

    wanted = definitions()
    assert gaps(wanted, read(language)) == []
    if language == "en":
        assert read(language) == wanted, "make it anew: python -m sparsedict.tools.make_locales"


def test_search_aliases_reach_a_host_that_knows_them(comfy, monkeypatch):
    import dataclasses

    from comfy_api.latest import io

    from sparsedict.nodes.demo_model import DemoModel

    seen = {}
    newer = dataclasses.make_dataclass("Schema", [("search_aliases", list, None)], bases=(io.Schema,))
    monkeypatch.setattr(io, "Schema", lambda **fields: seen.update(fields) or io.ComfyNode)
    monkeypatch.setattr(dataclasses, "fields", lambda _: newer.__dataclass_fields__.values())
    DemoModel.define_schema()
    assert "zorp" in seen["search_aliases"]


def test_a_renamed_node_is_told_to_a_host_that_can_replace_it(comfy, monkeypatch):
    from comfy_api import latest

    from sparsedict.nodes.renames import register

    told = []

    class Replacement:
        async def register(self, entry):
            told.append(entry)

    entry = {"old_node_id": "SparseDictOld", "new_node_id": "SparseDictLoad"}
    monkeypatch.delattr(latest.io, "NodeReplace", raising=False)
    asyncio.run(register([entry]))
    assert told == []
    monkeypatch.setattr(latest.io, "NodeReplace", dict, raising=False)
    monkeypatch.setattr(latest, "ComfyAPI", lambda: SimpleNamespace(node_replacement=Replacement()))
    asyncio.run(register([entry]))
    assert told == [entry]


def test_renames_lead_to_nodes_that_exist(schemas):
    from sparsedict.nodes.renames import RENAMED

    assert all(entry["new_node_id"] in schemas and entry["old_node_id"] not in schemas for entry in RENAMED)
