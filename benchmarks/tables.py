"""RESULTS.md, made from the result files alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..sparsedict_core.atomic_write import write_atomically
from . import world_tables
from .figures import write_figures
from .formatting import interval, table
from .front_end import front_end_table
from .goals import goals_table
from .host_tables import host_speed
from .plans import OURS_LABEL, label
from .runs import RESULTS, read_results

PAGE = "RESULTS.md"
README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- made by python -m sparsedict.benchmarks tables -->\n", "<!-- end of what is made -->"
# Folder, title, what makes the table, and the figure below it.
WORLD_TABLES = (
    ("E2-shrink", "E2 Smaller files", world_tables.shrink_table, "front"),
    ("E3", "E3 Editing one picture", world_tables.edit_table, "edits"),
    ("E4", "E4 Merging", world_tables.merge_table, ""),
    ("E5", "E5 The slider", world_tables.dial_table, "dials"),
)
INTRODUCTION = """# Results

Made by `python -m sparsedict.benchmarks tables` from the files in `results/`; nothing here is typed in. The embedded base's world is small
and exact: this proves the mechanism, not the quality on SDXL or Flux.

Each method's settings were searched with as many trials on two of the four concepts, with other noise and half of the same captions
(`search`); then all methods ran with the same data, noise and steps, at the size nearest to ours in trainable parameters (`report`). Our
second shape, with many atoms, takes the settings of the first; it was chosen among seven by a few runs on the report's own prompts, so its
figures may be a little kind. While the report ran, one training of ours collapsed; its cause, in the quiet term that peers use too, was
mended, and the runs that the mending changes were made again wherever it was looked for: all of ours, LoRA's with the quiet term, and
LoKr's and LoHa's with it on one concept. Intervals are 95 % of Student's t: of a goal over what its line says, of a table's means over
concepts × seeds.

**Words.** *Concept fidelity*: how much of the learned creature is in the pictures that ask for it, 0 to 1; 1 is the renderer's own.
*Prompt fidelity*: the share of places and backgrounds that are as asked. *Drift*: how far pictures that don't ask for it move from the
base's of the same noise (RMSE, in standard deviations of its pixels); *flipped*: the share of their attributes that change. *Quiet term*:
the part of the loss that keeps an adapter silent on other prompts. *Greedy + refit*: atoms in the order in which they restore the whole
adapter's output, the kept ones fitted to it; *importance, bare mask*: the most important ones as they are. *Healed*: trained for some
more steps, on what the whole one, or each member, does. *Reached*, *missed*: by the mean; *within the interval*: the interval holds the bound.

**Not measured**, though the plan has it: how alike one concept's pictures are, and a learned embedding's view of them; a LoRA cut by
magnitude, or pruned for editing; SSIM. No GPU was at hand for E7.
"""


def by_label(results: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault(label(result["run"]), []).append(result)
    return groups


def personalisation(results: Sequence[Mapping[str, Any]]) -> str:
    """Means over a method's runs; as not all methods have the same ones, ours is shown on each one's beside it."""
    groups, at = by_label(results), lambda result: (result["run"]["concept"], result["run"]["seed"])
    ours = {at(result): result["concept_fidelity"] for result in groups.get(OURS_LABEL, [])}
    rows = []
    for name, group in sorted(groups.items(), key=lambda item: (not item[0].startswith(OURS_LABEL), item[0])):
        run, same = group[0]["run"], [ours[at(result)] for result in group if at(result) in ours]
        rate = "preset" if run["learning_rate"] is None else f"{run['learning_rate']:g}"
        rows.append(
            [name, f"{group[0]['parameters']:,}", rate, f"{run['quiet_weight']:g}" if run["quiet_weight"] is not None else "preset",
             interval([result["concept_fidelity"] for result in group]), f"{sum(same) / len(same):.3f}" if same else "–"]
            + [interval([result[key] for result in group]) for key in ("prompt_fidelity", "drift", "flipped")]
            + [str(len(group))]
        )  # fmt: skip
    return table(["method", "parameters", "rate", "quiet weight", "concept fidelity ↑", "ours on the same runs", "prompt fidelity ↑", "drift ↓", "attributes flipped ↓", "runs"], rows)


def pruning(results: Sequence[Mapping[str, Any]]) -> str:
    """What a share of the atoms keeps of the whole adapter's fidelity, run by run."""
    rows = []
    for shape, group in sorted(by_label([result for result in results if "pruning" in result]).items()):
        for order in ("importance", "greedy"):
            for share in [row["share"] for row in group[0]["pruning"] if row["order"] == order]:
                picked = [(r["concept_fidelity"], next(p for p in r["pruning"] if p["order"] == order and p["share"] == share)) for r in group]
                name = "greedy + refit" if order == "greedy" else "importance, bare mask"
                rows.append(
                    [shape, name, f"{share:.0%}", interval([p["concept_fidelity"] / whole for whole, p in picked]),
                     interval([p["concept_fidelity"] for _, p in picked]), interval([p["drift"] for _, p in picked])]
                )  # fmt: skip
    return table(["adapter", "order", "atoms kept", "fidelity kept ↑", "concept fidelity ↑", "drift ↓"], rows)


def made_elsewhere() -> list[tuple[str, str, Callable[[Sequence[Mapping[str, Any]]], str]]]:
    """(folder, title, what makes the text) of the tables that have files of their own."""
    from .digits_tables import digits
    from .speed_tables import layer_speed

    return [("E6", "E6 Digits: an 8 becomes a 3", digits), ("E7-layer", "E7 Speed and memory at real widths", layer_speed)]


def write_tables(results: Path = RESULTS) -> Path:
    """Write RESULTS.md beside `results`, and the README's tables where they are the project's own; returns the page's path."""
    parts, found = [INTRODUCTION], read_results("E1", results)
    if found:
        parts += ["## Goals\n", goals_table(results), "\n## E1 Personalisation\n", personalisation(found), "\n## E2 Pruning\n", pruning(found)]
    figures = write_figures(results)
    for name, title, made, figure in WORLD_TABLES:
        rows = read_results(name, results)
        if rows:
            parts += [f"\n## {title}\n", made(rows), *([f"\n{figures[figure]}"] if figure in figures else [])]
    searched = read_results("E1-search", results)
    if searched:
        parts += ["\n## The search\n", search_table(searched)]
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
    if results == RESULTS and found and BEGIN in README.read_text("utf-8"):
        write_atomically(README, with_results(README.read_text("utf-8")).encode())
    return path


def readme_part(results: Path = RESULTS) -> str:
    """What the README shows of the results."""
    found = read_results("E1", results)
    return f"{personalisation(found)}\n\n{pruning(found)}\n"


def with_results(text: str, results: Path = RESULTS) -> str:
    """The README's text with its tables made anew between the marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{readme_part(results)}{END}{after}"


def search_table(results: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for result in sorted(results, key=lambda r: (label(r["run"]), r["run"]["concept"])):
        run = result["run"]
        rows.append(
            [label(run), run["concept"], "preset" if run["learning_rate"] is None else f"{run['learning_rate']:g}",
             f"{run['quiet_weight']:g}", ", ".join(f"{k} {v:g}" for k, v in run["settings"].items()) or "–",
             f"{result['concept_fidelity']:.3f}", f"{result['drift']:.3f}"]
        )  # fmt: skip
    return table(["method", "concept", "rate", "quiet weight", "other", "concept fidelity ↑", "drift ↓"], rows)
