"""RESULTS.md, made from the result files alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..sparsedict_core.atomic_write import write_atomically
from .figures import write_figures
from .formatting import table
from .goals import goals_table
from .host.front_end import front_end_table
from .host.tables import host_speed
from .result_table import RESULTS, read_results
from .world import tables as world_tables

PAGE, DEMO = "RESULTS.md", "demo.json"
README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- made by python -m sparsedict.benchmarks tables -->\n", "<!-- end of what is made -->"
# Folder, title, what makes the table, and the figure below it.
WORLD_TABLES = (
    ("E1", "E1 Personalisation", world_tables.personalisation_table, ""),
    ("E1-likeness", "E1 Likeness and diversity", world_tables.likeness_table, ""),
    ("E1", "E2 Pruning", world_tables.pruning_table, ""),
    ("E2-shrink", "E2 Smaller files", world_tables.shrink_table, "front"),
    ("E3", "E3 Editing one picture", world_tables.edit_table, "edits"),
    ("E4", "E4 Merging", world_tables.merge_table, ""),
    ("E5", "E5 The slider", world_tables.dial_table, "dials"),
    ("E1-search", "The search", world_tables.search_table, ""),
)
INTRODUCTION = """# Results

Made by `python -m sparsedict.benchmarks tables` from the files in `results/`; nothing here is typed in.
"""
WORLD_INTRODUCTION = """
The embedded base's world is small and exact: this proves the mechanism, not the quality on SDXL or Flux.

Each method's settings were searched on two of the four concepts, with other noise and half of the same captions (`search`), every peer's in
at least as many trials as ours; then all methods ran with the same data, noise and steps, at the size nearest to ours in trainable
parameters (`report`). Our second shape, with many atoms, takes the settings of the first; it was chosen among seven by a few runs on the
report's own prompts, so its figures may be a little kind. Intervals are 95 % of
Student's t: of a goal over what its line says, of a table's means over concepts × seeds.

**Words.** *Concept fidelity*: how much of the learned drawing is in the pictures that ask for it, 0 to 1; 1 is the renderer's own. *Prompt
fidelity*: the share of places and backgrounds that are as asked. *Drift*: how far pictures that don't ask for it move from the base's of
the same noise (RMSE, in standard deviations of its pixels); *flipped*: the share of their attributes that change. *Quiet term*: the part of
the loss that keeps an adapter silent on other prompts. *Greedy + refit*: atoms in the order in which they restore the whole adapter's
output, the kept ones fitted to it; *importance, bare mask*: the most important ones as they are. *Healed*: trained for some more steps, on
what the whole one, or each member, does. *By SVD*: a LoRA's product B·A at a lower rank; *by magnitude*: the largest numbers of A and B.
*Cosine*: of a picture and the renderer's of the same words, in the attribute reader's features; *diversity*: 1 − that of two pictures of
the same words. *Outside*: where the subject was not asked to be. *Reached*, *missed*: by the mean; *within the interval*: the interval
holds the bound.
"""
DEMO_KEYS = ("seeds", "steps", "parameters", "atoms_total", "slider_spearman", "concept_fidelity", "prompt_fidelity", "drift", "pruning", "lora", "lora_quiet")


def made_elsewhere() -> list[tuple[str, str, Callable[[Sequence[Mapping[str, Any]]], str]]]:
    """(folder, title, what makes the text) of the tables that have files of their own."""
    from .digits.tables import digits
    from .layer.tables import layer_speed
    from .lora.tables import conversion_table, kept_table

    return [
        ("E6", "E6 Digits: an 8 becomes a 3", digits),
        ("E7-layer", "E7 Speed and memory at real widths", layer_speed),
        ("E9-lora", "E9 LoRAs taken apart", kept_table),
        ("E9-conversion", "E9 Converting a LoRA", conversion_table),
    ]


def write_tables(results: Path = RESULTS) -> Path:
    """Write RESULTS.md beside `results`, and the README's tables where they are the project's own; returns the page's path."""
    parts, of_world = [INTRODUCTION], {name: read_results(name, results) for name, *_ in WORLD_TABLES}
    if any(of_world.values()):
        parts.append(WORLD_INTRODUCTION)
    elif (results / DEMO).exists():
        parts += ["## The demo\n", demo_part(results)]
    parts += ["## Goals\n", goals_table(results)]
    figures = write_figures(results)
    for name, title, made, figure in WORLD_TABLES:
        if rows := of_world[name]:
            parts += [f"\n## {title}\n", made(rows), *([f"\n{figures[figure]}"] if figure in figures else [])]
    in_host = read_results("E7-host", results)
    if in_host:
        parts += ["\n## E7 Speed in ComfyUI\n", host_speed(in_host)]
    for name, title, make in made_elsewhere():
        if table_results := read_results(name, results):
            parts += [f"\n## {title}\n", make(table_results)]
    in_browser = read_results("E8-front-end", results)
    if in_browser:
        parts += ["\n## E8 The atom selector in the browser\n", front_end_table(in_browser)]
    path = results.parent / PAGE
    write_atomically(path, ("\n".join(parts) + "\n").encode())
    if results == RESULTS and BEGIN in README.read_text("utf-8"):
        write_atomically(README, with_results(README.read_text("utf-8")).encode())
    return path


def readme_part(results: Path = RESULTS) -> str:
    """What the README shows of the results."""
    found = read_results("E1", results)
    if not found:
        return demo_part(results)
    return f"{world_tables.personalisation_table(found)}\n\n{world_tables.pruning_table(found)}\n"


def keep_demo(report: Path, results: Path = RESULTS) -> None:
    """Keep what the README shows of the demo's report.json."""
    found = json.loads(report.read_text("utf-8"))
    write_atomically(results / DEMO, (json.dumps({key: found[key] for key in DEMO_KEYS}, indent=1) + "\n").encode())


def demo_part(results: Path) -> str:
    """Five rows of the demo's report, and what they are: shown as long as E1 is not measured on this base."""
    found = json.loads((results / DEMO).read_text("utf-8"))
    greedy = {row["share"]: row for row in found["pruning"] if row["order"] == "greedy"}
    named = [
        ("sparse dictionary", f"{found['parameters']:,} numbers", found),
        *((f"its best {share:.0%} of the atoms", f"{greedy[share]['atoms']:,} of {found['atoms_total']:,} atoms", greedy[share]) for share in (0.25, 0.10)),
        ("LoRA", f"{found['lora']['parameters']:,} numbers", found["lora"]),
        ("LoRA + quiet term", f"{found['lora_quiet']['parameters']:,} numbers", found["lora_quiet"]),
    ]
    rows = [[name, size, *(f"{row[key]:.3f}" for key in ("concept_fidelity", "prompt_fidelity", "drift"))] for name, size, row in named]
    seeds = found["seeds"]
    trainings, command = ("One training", "demo") if seeds == 1 else (f"Means of {seeds} trainings", f"demo --seeds {seeds}")
    said = (
        f"{trainings} of one concept, {found['steps']} steps{'' if seeds == 1 else ' each'}, from `python3 dev.py {command}`. "
        "LoRA's rates are the best of three that were tried on this concept; E1 to E5 are not measured on this base yet."
    )
    return f"{table(['adapter', 'size', 'concept fidelity ↑', 'prompt fidelity ↑', 'drift ↓'], rows)}\n\n{said}\n"


def with_results(text: str, results: Path = RESULTS) -> str:
    """The README's text with its tables made anew between the marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{readme_part(results)}{END}{after}"
