"""E9 as markdown, from the result files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..formatting import interval, table

MEASURES = ("concept_fidelity", "prompt_fidelity", "drift")
HEAD = ("concept fidelity ↑", "prompt fidelity ↑", "drift ↓")
NAMES = {
    "lora": "LoRA, through peft", "converted": "converted, all atoms", "svd": "LoRA cut by SVD, per Linear", "pruned": "", "gated": "gated", "gated, as a LoRA": "gated, and a LoRA again",
}  # fmt: skip
ORDERS = {"importance": "importance, bare mask", "greedy": "greedy + refit"}


def label(row: Mapping[str, Any]) -> tuple[str, str]:
    """(what, how much of it) of a row."""
    if row["what"] == "pruned":
        return f"{row['rotation']}, {ORDERS[row['order']]}", f"{row['share']:.0%}"
    if row["what"] == "gated, as a LoRA":
        return NAMES[row["what"]], f"rank {row['rank']}"
    return NAMES[row["what"]], f"{row['share']:.0%}" if "share" in row else "100%"


def kept_table(results: Sequence[Mapping[str, Any]]) -> str:
    """What is kept of LoRAs of the demo world, and which rotation is easiest to read."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    turned: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        for row in result["rows"]:
            if row["what"] == "readability":
                turned.setdefault(row["rotation"], []).append(row)
            else:
                groups.setdefault(label(row), []).append(row)
    rows = [[*name, f"{sum(r['numbers'] for r in found) / len(found):,.0f}", *(interval([r[m] for r in found]) for m in MEASURES), str(len(found))] for name, found in groups.items()]
    reading = [
        [name, *(interval([row[key] for row in found]) for key in ("atoms_for_90", "overlap", "places_of_half")), str(len(found))] for name, found in turned.items()
    ]
    concepts, seeds = sorted({r["concept"] for r in results}), len({r["seed"] for r in results})
    missed = [row["error"] for result in results for row in result["rows"] if row["what"] == "gated, as a LoRA" and row["rank"] == 8]
    return "\n\n".join(
        [
            f"LoRAs of rank 8 on all 33 attention and feed-forward Linears, trained without a quiet term, {results[0]['steps']} steps; concepts {', '.join(concepts)}, {seeds} seed(s). "
            f"A gated dictionary's nearest LoRA of rank 8 misses {interval(missed)} of its change on inputs that it has not seen.",
            table(("what", "kept", "numbers", *HEAD, "runs"), rows),
            "Which atoms are easiest to read: the share of atoms that holds 90 % of the change's energy, how alike the places are at which two atoms of a Linear act "
            "(0 to 1), and the share of tokens that holds half of an atom's energy. Fewer is better in each.",
            table(("rotation", "atoms for 90 % ↓", "overlap ↓", "tokens of half an atom ↓", "runs"), reading),
        ]
    )


def conversion_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Time and memory of converting, the cost at work, and what a dictionary of so many sites costs its user."""
    made = [_converting(found) for found in results if "applied" in found]
    return "\n\n".join([*made, *(_at_hand(found) for found in results if "shown" in found)])


def _converting(about: Mapping[str, Any]) -> str:
    rows = [
        [kind, f"{about[kind]['seconds']:.1f}", f"{about[kind]['cpu_seconds']:.1f}", f"{about[kind]['peak_bytes'] / about[kind]['file_bytes']:.2f}", f"{about[kind]['made_bytes'] / 1e6:.0f}"]
        for kind in ("float16", "float32")
    ]
    work = about["applied"]
    return "\n\n".join(
        [
            f"A LoRA of SDXL's size: {about['modules']} Linears at rank {about['rank']}, fp16, {about['float16']['file_bytes'] / 1e6:.0f} MB, on {about['threads']} threads of a CPU. "
            "The peak is counted from the moment when all is imported and the base is open; the machine had other work.",
            table(("dictionary in", "seconds", "CPU seconds", "peak memory, × the file", "MB written"), rows),
            f"At work on {work['sites']} Linears of SDXL's widths, CPU seconds of one thread: {work['ratio']:.3f} × the same LoRA unmerged in peft "
            f"(a step takes {work['seconds']['base']:.2f} s without, {work['seconds']['peft']:.2f} s with it in peft, {work['seconds']['dictionary']:.2f} s as a dictionary; {work['repeats']} turns).",
        ]
    )


def _at_hand(found: Mapping[str, Any]) -> str:
    seconds = ", ".join(f"{name} {value:.2f}" for name, value in found["cpu_seconds"].items())
    return (
        f"Such a dictionary, {found['sites']} sites and {found['atoms']:,} atoms in {found['file_bytes'] / 1e6:.0f} MB, in ComfyUI with Chromium, median of {found['repeats']} first looks: "
        f"the server answers the atom selector in {found['answer'] / 1000:.2f} s, the panel shows the atoms {found['shown'] / 1000:.2f} s after the file is chosen "
        f"(it looks for changes every 0.4 s). CPU seconds of one thread in Python: {seconds}. The machine had other work."
    )
