"""Compose Sparse Dicts: several in one, each with its strength."""

from __future__ import annotations

import re
from typing import Any

import torch
from comfy_api.latest import io

from ..sparsedict_core.compose import compose
from .schema import schema
from .socket import SparseDict, SparseDictSocket
from .widgets import strength_input

NUMBERS = range(1, 9)
GROUP = "dicts"
TOOLTIP = "A dictionary; in addresses its atoms are named after it: name:L17[137]."


class ComposeSparseDicts(io.ComfyNode):
    """The inputs grow where the host has such inputs; elsewhere all eight are there, under the names that growing ones have, so that a workflow moves between hosts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [*dictionaries(), *(strength_input(f"strength_{number}") for number in NUMBERS)]
        return schema(
            "SparseDictCompose",
            "Compose Sparse Dicts",
            "Puts up to eight sparse dictionaries into one, such as a concept and a style. Their atoms are added, none is changed.",
            ["merge", "combine", "stack", "concept and style", "lora stack"],
            inputs=inputs,
            outputs=[SparseDictSocket.Output("result", display_name="sparse dict")],
        )

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        parts: list[tuple[str, SparseDict, float]] = []
        grown = values.get(GROUP) or {}
        for number in NUMBERS:
            part = grown.get(f"dict_{number}", values.get(f"{GROUP}.dict_{number}"))
            if part is not None:
                parts.append((member_name(part.name, [name for name, _, _ in parts]), part, values[f"strength_{number}"]))
        adapter = compose([(name, part.adapter, strength) for name, part, strength in parts])
        gains = {}
        for name, part, _ in parts:
            for key, site in part.adapter.sites.items():
                member = name if site.member is None else f"{name}.{site.member}"
                gains[f"{member}:{site.name.place}"] = torch.ones(site.atoms) if part.gains is None or key not in part.gains else part.gains[key]
        unchanged = all(part.gains is None for _, part, _ in parts)
        return io.NodeOutput(SparseDict(adapter, "_".join(name for name, _, _ in parts), None if unchanged else gains))


def dictionaries() -> list[Any]:
    """`dicts.dict_1` to `dicts.dict_8`, of which the first is needed."""
    if hasattr(io, "Autogrow"):
        template = SparseDictSocket.Input("dict", display_name="dict", tooltip=TOOLTIP)
        return [io.Autogrow.Input(GROUP, display_name="dicts", tooltip=TOOLTIP, template=io.Autogrow.TemplateNames(template, names=[f"dict_{number}" for number in NUMBERS], min=1))]
    return [
        SparseDictSocket.Input(f"{GROUP}.dict_{number}", display_name=f"dict {number}", optional=number > 1, tooltip=TOOLTIP) for number in NUMBERS
    ]


def member_name(name: str, taken: list[str]) -> str:
    """A name that addresses can use and no other part has."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-")
    name = name if name and (name[0].isalpha() or name[0] == "_") else f"d{name}"
    number, wanted = 2, name
    while wanted in taken:
        wanted, number = f"{name}_{number}", number + 1
    return wanted
