"""E7 at real widths as markdown, from the result files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..formatting import table
from .variants import BEFORE, DENSITY, LORA_RANK, OFT_BLOCK

NAMES = {
    "lora": f"LoRA, rank {LORA_RANK}, unmerged", "dora": f"DoRA, rank {LORA_RANK}", "oft": f"OFT, blocks of {OFT_BLOCK}",
    "ours_equal": "ours, no more numbers than LoRA", "ours_128": "ours, 128 atoms (default)",
}  # fmt: skip
CHANGES = ("strength", "selection", "selection, ranked", "load")


def name_of(variant: str) -> str:
    """A variant's name in the tables."""
    plain, _, _before = variant.partition(f" {BEFORE}")
    text = NAMES.get(plain)
    if text is None:
        _, atoms, *share = plain.split("_")
        text = f"ours, {atoms} atoms" + (f", {share[0].replace('%', ' %')} of them kept" if share else "")
    return text + (", before" if variant.endswith(BEFORE) else "")


def layer_speed(results: Sequence[Mapping[str, Any]]) -> str:
    """Tables of steps, of changes and of files, one row a model and variant."""
    parts = []
    for result in results:
        rows = result["rows"]
        parts.append(f"### {result['model']} ({result['device']}; bf16: {result['bf16']})")
        parts += [steps(result["model"], group) for group in pairs(rows)]
        parts += [changed(row) for row in rows if row["what"] == "change"]
        parts += [peaks(row) for row in rows if row["what"] == "memory"]
    about = results[0]
    head = (
        f"Real widths, random weights, torch {about['torch']}; {about['threads']} thread of a CPU, CPU time, or a GPU where it says so; medians of runs that "
        f"took turns. “Sites alone” runs the sites' Linears on the model's own shapes, as what an adapter adds is less "
        f"than a whole step's noise; “added to a step” is that time over the base's whole step. Ours trains at an activation density of {DENSITY:g}. "
        f"“Before” is the core before the layer was made fast."
    )
    return "\n\n".join([head, *parts])


def pairs(rows: Sequence[Mapping[str, Any]]) -> list[dict[tuple[str, bool], Mapping[str, Any]]]:
    """Rows of one dtype together, by (what, training)."""
    groups: dict[str, dict[tuple[str, bool], Mapping[str, Any]]] = {}
    for row in rows:
        if row["what"] in ("sites", "steps"):
            groups.setdefault(row["dtype"], {})[row["what"], row["training"]] = row
    return list(groups.values())


def steps(model: str, group: Mapping[tuple[str, bool], Mapping[str, Any]]) -> str:
    """Sampling and training, whole steps and the sites alone."""
    any_row = next(iter(group.values()))
    variants = list(dict.fromkeys(name for row in group.values() for name in row["seconds"] if name != "base"))
    cells = []
    for variant in variants:
        count = next(row["parameters"][variant] for row in group.values() if variant in row["parameters"])
        line = [name_of(variant), f"{count:,}"]
        for training in (False, True):
            step, sites = group.get(("steps", training)), group.get(("sites", training))
            over = "lora" if training else "base"
            line.append(ratio(step, f"to_{over}", variant))
            # Only what is added compares: the Linears themselves are the same for all.
            added = sites["over_base"] if sites and variant in sites["over_base"] else None
            if not training:
                base = step["seconds"]["base"] if step else None
                line.append(f"{added[variant] / base:.2%}" if added and base else "–")
            line.append(f"{added[variant] / added['lora']:.2f}" if added else "–")
        cells.append(line)
    head = ["variant", "parameters", "sampling step / base ↓", "added to a step ↓", "added / LoRA's ↓", "training step / LoRA ↓", "added / LoRA's ↓"]
    about = f"{any_row['dtype']}, {any_row['blocks']} blocks, latents of {any_row['latent_side']}², {any_row['text_tokens']} text tokens"
    return f"{about}:\n\n{table(head, cells)}"


def ratio(row: Mapping[str, Any] | None, kind: str, variant: str) -> str:
    return "–" if row is None or variant not in row[kind] else f"{row[kind][variant]:.3f}"


def changed(row: Mapping[str, Any]) -> str:
    """Milliseconds of a change at all sites of the whole model, and bytes of files."""
    s = row["seconds"]
    cells = []
    for suffix in ("", f" {BEFORE}"):
        if f"load{suffix}" in s:
            calls = s[f"calls alone{suffix}"]
            cells.append(["ours" + suffix.replace(" ", ", "), *(f"{1e3 * (s[name + suffix] - (0 if name == 'load' else calls)):.1f}" for name in CHANGES), f"{1e3 * calls:.1f}"])
    head = ["", "strength, ms", "selection, ms ↓", "selection with its ranking, ms", "load and attach, ms", "(one call of all sites, ms, is taken off)"]
    whole = row["bytes"]["100% of the atoms"]
    sizes = [[name, f"{size:,}", f"{size / whole:.3f}"] for name, size in row["bytes"].items()]
    sizes.append([f"LoRA, rank {LORA_RANK} ({row['lora_parameters']:,} numbers)", f"{row['lora_bytes']:,}", f"{row['lora_bytes'] / whole:.3f}"])
    reading = f"Reading a LoRA file of rank {LORA_RANK} and no more: {1e3 * s['read a LoRA file']:.1f} ms."
    return (
        f"A change at all {row['sites']} sites of the whole model ({row['parameters']:,} numbers), until each has made a call. {reading}\n\n{table(head, cells)}\n\n"
        f"{table(['file, without moments', 'bytes', 'of the whole ↓'], sizes)}"
    )


def peaks(row: Mapping[str, Any]) -> str:
    """Peak memory of a step, above the weights."""
    sampling, training = row["peak_bytes"]["sampling"], row["peak_bytes"]["training"]
    cells = [
        [name_of(name) if name != "base" else "base", f"{sampling[name] / 1e6:.1f}", f"{sampling[name] / sampling['base']:.3f}",
         f"{training[name] / 1e6:.1f}" if name in training else "–", f"{training[name] / training['lora']:.3f}" if name in training else "–"]
        for name in sampling
    ]  # fmt: skip
    return table([f"peak memory above the weights, {row['dtype']}", "sampling, MB", "/ base ↓", "training, MB", "/ LoRA ↓"], cells)
