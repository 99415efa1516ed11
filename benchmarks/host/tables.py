"""RESULTS.md's part on ComfyUI: speed beside what the host has itself, learning beside the command line, start and stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..formatting import table

HEADS = {
    "training": ["model", "batch", "dtype", "recomputed blocks", "LoRA's numbers", "ours", "LoRA, ms a step", "ours, ms", "ours / LoRA ↓", "with quiet rows / LoRA ↓"],
    "sampling": ["model", "rows", "parameters, ours / LoRA", "base, ms", "base", "merged LoRA", "ours, all atoms ↓", "ours, 25 %", "ours, 10 %", "host's bypass LoRA"],
    "change": ["model", "parameters", "sites", "LoRA on them, ms", "LoRA everywhere, ms", "ours, strength, ms", "ours, selection, ms", "strength / LoRA on them ↓",
               "strength / LoRA everywhere ↓", "selection / LoRA on them ↓"],
    "learning": ["concept", "seed", "fidelity, host ↑", "fidelity, command line ↑", "drift, host ↓", "drift, command line ↓"],
    "server": ["what", "seconds (median) ↓", "most", "times"],
}  # fmt: skip
TITLES = {
    "training": "A training step: the node against TrainLoraNode, as many trained numbers, data, batch and dtype alike. "
    "(A batch of B in TrainLoraNode runs every caption with every picture, B² rows; the rows of batch 1 compare like with like.)",
    "sampling": "20 steps of sampling, in units of an unmerged LoRA on the same Linears.",
    "change": "From a new strength or selection to a loaded model.",
    "learning": "The same five pictures, 300 steps and seed, trained by the node's backend on the host's model and by the command line on its own; both measured in the command line's pipeline.",
    "server": "A server as `dev.py comfy` starts it, by the clock.",
}


def host_speed(results: Sequence[Mapping[str, Any]]) -> str:
    """CPU time as ratios; which runs stand against which is said in the head of each table."""
    rows = [row for result in results for row in result["rows"] if "seconds" in row]
    groups: dict[str, list[list[str]]] = {part: [] for part in TITLES}
    for row in rows:
        s = row["seconds"]
        if row["what"] == "training":
            groups["training"].append(
                [row["model"], str(row["batch"]), row["dtype"], "yes" if row["checkpointing"] else "no",
                 f"{row['host_parameters']:,} (rank {row['host_rank']})", f"{row['parameters']:,} ({row['atoms']} atoms, rank {row['rank']})",
                 f"{1e3 * s['host']:.1f}", f"{1e3 * s['ours']:.1f}", f"{s['ours'] / s['host']:.2f}",
                 f"{s['ours_quiet'] / s['host']:.2f}" if "ours_quiet" in s else "–"]
            )  # fmt: skip
        elif row["what"] == "sampling":
            lora = s["unmerged_lora"]
            groups["sampling"].append(
                [row["model"], str(row["rows"]), f"{row['parameters']:,} / {row['lora_parameters']:,}", f"{1e3 * s['base']:.0f}",
                 *[f"{s[name] / lora:.2f}" for name in ("base", "merged_lora", "ours", "ours_25%", "ours_10%")],
                 f"{s['bypass_lora'] / lora:.2f}" if "bypass_lora" in s else "–"]
            )  # fmt: skip
        elif row["what"] == "change":
            groups["change"].append(
                [row["model"], f"{row['model_parameters']:,}", str(row["sites"]), f"{1e3 * s['lora_same_sites']:.1f}", f"{1e3 * s['lora_everywhere']:.1f}",
                 f"{1e3 * s['ours_strength']:.2f}", f"{1e3 * s['ours_selection']:.2f}", f"1/{s['lora_same_sites'] / s['ours_strength']:.0f}",
                 f"1/{s['lora_everywhere'] / s['ours_strength']:.0f}", f"1/{s['lora_same_sites'] / s['ours_selection']:.0f}"]
            )  # fmt: skip
        else:
            what = "start of the pack" if row["what"] == "start" else f"stop while {row['while']} are made" if row["while"] != "steps" else "stop between steps"
            groups["server"].append([what, f"{s:.2f}", f"{row['most']:.2f}", str(row["repeats"])])
    groups["learning"] = [
        [row["concept"], str(row["seed"]), *(f"{row[f'{where}_{key}']:.3f}" for key in ("concept_fidelity", "drift") for where in ("host", "command_line"))]
        for result in results for row in result["rows"] if row["what"] == "learning"
    ]  # fmt: skip
    about = next(result for result in results if "host" in result)
    head = f"ComfyUI {about['host']}, torch {about['torch']}, CPU time on {about['threads']} thread, medians of runs that took turns."
    return "\n\n".join([head, *(f"{TITLES[part]}\n\n{table(HEADS[part], cells)}" for part, cells in groups.items() if cells)])
