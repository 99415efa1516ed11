"""Writes tests/vectors/selection.json: addresses and selections on two small adapters, and the atoms that they mean.

    python -m pytest … tests/core/test_selection_vectors.py     compares the core with the file
    python tests/vectors/make_selection.py                      writes it anew, after the core's rules have changed

The front end's web/selection.js is held to the same file by tests/web/selection.test.mjs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.addresses import format_masks, resolve, resolve_layers
from sparsedict.sparsedict_core.atom_table import atom_table
from sparsedict.sparsedict_core.compose import compose
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.errors import SparseDictError
from sparsedict.sparsedict_core.selection import Selection, select
from sparsedict.sparsedict_core.site import SiteName, SparseSite

FILE = Path(__file__).with_name("selection.json")

ADDRESSES = [
    "L1", "l1", "L1[0]", "L1[0-3]", "L1[0-3,7]", "L1[ 0 - 3 , 7 ]", "L0", "L0.text", "L0.image[2]", "L0.text[1],L1[5]", "L0-L1", "L0-2",
    "L1 , L2", "L0-L2.text", "L4-L5", "L5[40-60]", "L5[41]", "L1,L1[2]", "L4", "L0[1]", "L3", "L9", "L2-L1", "L1[9-2]", "L1[99]", "L1[",
    "L1[]", "L1]", "", " ", "X1", "L", "L1,", "L1.self", "L0.single[1]", "cat:L1", "L4[0]", "L1[0-9999999999]", "L0-L9", "L1..2", "L1.text",
    "L5[41,42]",
]  # fmt: skip
COMPOSED = ["cat:L1", "cat:L1[2]", "dog:L0.image[1],cat:L5", "L1", "L1[0]", "bird:L1", "dog :L2[0-3]", "cat:L0[1]", "cat:L0", "cat:L9"]
SEVERAL = [
    "L0.image[1]", "L0.image", "L0.image.q", "L0.image.q[0-1]", "L0.ff", "L0.ff[1]", "L0.ff.up[1]", "L0.ff.down", "L0", "L1", "L1[0]", "L1.out[0]",
    "L1.q", "L0-L1.q", "L0-L1.ff", "L1.image", "L0.image.", "L0.im", "L1.out", "L0.out",
]  # fmt: skip
LAYERS = ["L1", "L0.text", "L1-L2", "L0-L5", "L1[0]", "L7", "L4"]
SELECTIONS: list[dict[str, Any]] = [
    *({"keep": share} for share in (1, 0.5, 0.25, 0.1, 0.05, 0.01, 0.001, 0.03125, 0.09375)),
    *({"top": number} for number in (0, 1, 2, 3, 8, 31, 1000)),
    *({"importance_share": share} for share in (0, 0.01, 0.5, 0.8, 0.91, 0.999, 1)),
    *({"threshold": value} for value in (0, 0.1, 0.25, 0.5, 0.7, 1e6)),
    {"keep": 0.25, "per_site": True}, {"keep": 0.5, "per_site": True, "layers": "L0,L2"}, {"top": 2, "per_site": True},
    {"keep": 0.25, "layers": "L1-L2"}, {"top": 5, "layers": "L0.text"}, {"importance_share": 0.5, "layers": "L1"}, {"threshold": 0.3, "layers": "L5"},
    {"keep": 0.25, "invert": True}, {"top": 0, "invert": True}, {"top": 3, "layers": "L1", "invert": True}, {"atoms": "L1[0-3]", "invert": True},
    {"atoms": "L0.text,L1[0-3],L5", "layers": "L0-L1"}, {"atoms": "L1[99]"}, {"layers": "L1[3]", "top": 2}, {"top": 4, "layers": "L4"},
    {"keep": 0.25, "order": "greedy"}, {"top": 7, "order": "greedy"}, {"keep": 0.3, "order": "greedy", "per_site": True},
    {"top": 4, "order": "greedy", "layers": "L2"}, {"threshold": 0.1, "order": "greedy"}, {"importance_share": 0.5, "order": "greedy"},
    {"importance_share": 0.5, "per_site": True},
]  # fmt: skip


def make_site(path: str, layer: int, stream: str | None, ids: list[int], importance: list[float], generator: torch.Generator) -> SparseSite:
    atoms, width = len(ids), 6
    coefficients = torch.rand(40, atoms, generator=generator)
    return SparseSite(
        SiteName(path, layer, stream), AdapterConfig(atoms=max(1, atoms)).make_encoder(),
        encoder_weight=torch.randn(atoms, width, generator=generator), encoder_basis=None, encoder_bias=torch.zeros(atoms),
        dictionary_weight=torch.randn(atoms, width, generator=generator), dictionary_basis=None,
        importance=torch.tensor(importance), atom_ids=torch.tensor(ids, dtype=torch.int32), moments=coefficients.T @ coefficients,
    )  # fmt: skip


def plain() -> SparseAdapter:
    """Two streams in layer 0, one in the others, ties, ids with holes, a site without atoms."""
    generator = torch.Generator().manual_seed(3)

    def some(number: int, scale: float) -> list[float]:
        return (torch.rand(number, generator=generator).pow(3) * scale).tolist()

    rows = [
        ("t.blocks.0.attn.to_out.0", 0, "image", list(range(6)), some(6, 1.0)),
        ("t.blocks.0.attn.to_add_out", 0, "text", list(range(5)), [0.5, 0.25, 0.25, 0.0, 0.125]),
        ("t.blocks.1.attn.to_out.0", 1, None, list(range(8)), some(8, 0.7)),
        ("t.blocks.2.attn.to_out.0", 2, None, list(range(8)), [0.25] * 4 + some(4, 0.4)),
        ("t.blocks.4.attn.to_out.0", 4, None, [], []),
        ("t.blocks.5.attn.to_out.0", 5, None, [40, 2, 41, 60, 7], some(5, 1.2)),
    ]
    return SparseAdapter([make_site(*row, generator) for row in rows], AdapterConfig(atoms=8), "t", {"title": "vectors"})


def several() -> SparseAdapter:
    """Attention outputs, their q, and feed-forward Linears; slices of one fused Linear in layer 1, whose output has no stream of its own."""
    generator = torch.Generator().manual_seed(4)
    rows = [
        ("t.blocks.0.attn.to_out.0", 0, "image"), ("t.blocks.0.attn.to_q", 0, "image.q"), ("t.blocks.0.ff.net.0.proj", 0, "ff.up"),
        ("t.blocks.0.ff.net.2", 0, "ff.down"), ("t.single.0.proj_out", 1, None), ("t.single.0.qkv", 1, "q"), ("t.single.0.qkv", 1, "ff.up"),
    ]  # fmt: skip
    sites = [make_site(*row, list(range(3)), [0.5, 0.25, 0.125], generator) for row in rows]
    sites[5].name, sites[6].name = (site.name._replace(rows=rows) for site, rows in zip(sites[5:], ((0, 6), (6, 12)), strict=True))
    return SparseAdapter(sites, AdapterConfig(atoms=3), "t", {"title": "several"})


def answer(make: Any) -> Any:
    """What it gives, or that it is refused; the texts of errors differ a little between the two languages."""
    try:
        return make()
    except SparseDictError:
        return "refused"


def numbers(adapter: SparseAdapter, masks: dict[str, torch.Tensor]) -> list[int]:
    """Atoms counted through all sites."""
    return torch.cat([masks[key].cpu() for key in adapter.sites]).nonzero().flatten().tolist()


def vectors() -> dict[str, Any]:
    adapter = plain()
    wide = several()
    both = compose([("cat", plain(), 1.0), ("dog", plain(), 0.5)])

    def address(which: SparseAdapter, text: str) -> Any:
        masks = resolve(which, text)
        return {"atoms": numbers(which, masks), "shortest": format_masks(which, masks)}

    def selected(selection: dict[str, Any]) -> Any:
        result = select(adapter, Selection(**selection))
        return {"atoms": numbers(adapter, result.masks), "importance_kept": round(result.importance_kept, 9)}

    return {
        "plain": atom_table(adapter, greedy=True),
        "composed": atom_table(both),
        "several": atom_table(wide),
        "several_addresses": [{"text": text, "means": answer(lambda text=text: address(wide, text))} for text in SEVERAL],
        "addresses": [{"text": text, "means": answer(lambda text=text: address(adapter, text))} for text in ADDRESSES],
        "composed_addresses": [{"text": text, "means": answer(lambda text=text: address(both, text))} for text in COMPOSED],
        "layers": [
            {"text": text, "means": answer(lambda text=text: sorted(list(adapter.sites).index(key) for key in resolve_layers(adapter, text)))}
            for text in LAYERS
        ],
        "selections": [{"selection": selection, "keeps": answer(lambda selection=selection: selected(selection))} for selection in SELECTIONS],
    }


def main() -> None:
    rows = json.dumps(vectors(), ensure_ascii=False, indent=1)
    FILE.write_text(rows + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
