"""E9 as markdown, from the result files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...tools.make_demo_lora import RANK
from ..formatting import interval, table
from .keeping import LOOKED_AT, PICTURES, SAMPLING_STEPS

MEASURES = ("concept_fidelity", "prompt_fidelity", "drift")
HEAD = ("concept fidelity ↑", "prompt fidelity ↑", "drift ↓")
NAMES = {
    "lora": "LoRA, through peft", "converted": "converted, all atoms", "svd": "LoRA cut by SVD", "pruned": "", "gated": "gated", "gated, as a LoRA": "gated, and a LoRA again: the nearest",
}  # fmt: skip
ORDERS = {"importance": "importance, bare mask", "greedy": "greedy + refit"}


def label(row: Mapping[str, Any]) -> tuple[str, str]:
    """(what, how much of it) of a row."""
    if row["what"] == "pruned":
        return f"{row['rotation']}, {ORDERS[row['order']]}", f"{row['share']:.0%}"
    if row["what"] == "gated, as a LoRA":
        return NAMES[row["what"]], f"rank {row['rank']}"
    if row["what"] == "svd":
        return NAMES[row["what"]], f"rank {max(1, int(RANK * row['share']))}"
    return NAMES[row["what"]], "100%"


def kept_table(results: Sequence[Mapping[str, Any]]) -> str:
    """What is kept of LoRAs of the demo world, and which rotation is easiest to read."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    turned: dict[str, list[Mapping[str, Any]]] = {}
    # The gated ones, which are results of their own, last.
    for row in sorted((row for result in results for row in result["rows"]), key=lambda row: row["what"].startswith("gated")):
        if row["what"] == "readability":
            turned.setdefault(row["rotation"], []).append(row)
        elif row["what"] != "svd" or RANK * row["share"] >= 0.5:  # a rank is 1 at least
            groups.setdefault(label(row), []).append(row)
    rows = [[*name, f"{sum(r['numbers'] for r in found) / len(found):,.0f}", *(interval([r[m] for r in found]) for m in MEASURES), str(len(found))] for name, found in groups.items()]
    columns = ("atoms_for_90", "overlap", "picture_overlap")
    reading = [[name, *(interval([row[key] for row in found]) for key in columns), str(len(found))] for name, found in turned.items()]
    return "\n\n".join(
        [
            f"LoRAs of rank 8 on all 33 attention and feed-forward Linears, trained without a quiet term, {results[0]['steps']} steps, on {told(results, 'readability')}. "
            f"A row is measured on {PICTURES} pictures of {SAMPLING_STEPS} steps, so it is not to be laid beside E1's.",
            table(("what", "kept", "numbers", *HEAD, "runs"), rows),
            gating(results),
            "Which atoms are easiest to read: the share of atoms that holds 90 % of the change's energy; and how alike the places are at which two atoms of a Linear act, and those in "
            f"a picture that two of the {LOOKED_AT} most important atoms change, each taken out by itself (cosine of sizes, 0 to 1). Less is better in each.",
            table(("rotation", "atoms for 90 % ↓", "overlap of tokens ↓", "overlap in pictures ↓", "runs"), reading),
        ]
    )


def told(results: Sequence[Mapping[str, Any]], what: str) -> str:
    """The concepts and seeds that have such rows; cell by cell where one is missing."""
    cells = sorted((result["seed"], result["concept"]) for result in results if any(row["what"] == what for row in result["rows"]))
    seeds, concepts = sorted({seed for seed, _ in cells}), sorted({concept for _, concept in cells})
    if len(cells) == len(seeds) * len(concepts):
        return f"{', '.join(concepts)}, each with seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    return ", ".join(f"{concept} (seed {seed})" for seed, concept in cells)


def gating(results: Sequence[Mapping[str, Any]]) -> str:
    """The gated ones beside the whole LoRAs of the same cells."""
    whole = {(result["concept"], result["seed"]): row for result in results for row in result["rows"] if row["what"] == "lora"}
    pairs, missed = [], []
    for result in results:
        for row in result["rows"]:
            lora = whole.get((result["concept"], result["seed"]))
            if row["what"] == "gated" and lora is not None:
                pairs.append((row["concept_fidelity"] / lora["concept_fidelity"], row["drift"] / lora["drift"]))
            if row["what"] == "gated, as a LoRA" and row["rank"] == 8:
                missed.append(row["error"])
    if not pairs:
        return ""
    return (
        f"Gated ones keep {interval([kept for kept, _ in pairs])} of the LoRA's concept fidelity at {interval([drift for _, drift in pairs])} of its drift ({told(results, 'gated')}); "
        f"their nearest LoRA of rank 8 misses {interval(missed)} of the change's size on inputs that it has not seen."
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
