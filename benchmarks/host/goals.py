"""The goals for speed in ComfyUI and in the browser, as ratios of one run where they compare."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..goal import Goal, Results, at_most, ratio_at_most
from ..result_table import read_results


def host_goals(results: Path) -> list[Goal]:
    """Those that there are results for."""
    return [*host(read_results("E7-host", results)), *browser(read_results("E8-front-end", results))]


def host(results: Results) -> Iterator[Goal]:
    rows = [row for result in results for row in result["rows"]]
    for row in rows:
        if row["what"] == "training" and "seconds" in row:
            recomputed = ", recomputed blocks" if row["checkpointing"] else ""
            text = f"ComfyUI, {row['model']} {row['dtype']}, batch {row['batch']}{recomputed}: a training step ÷ TrainLoraNode’s of rank {row['host_rank']}"
            yield ratio_at_most(text, 1.0, row["all"]["ours"], row["all"]["host"])
        elif row["what"] == "sampling":
            yield ratio_at_most(f"ComfyUI, {row['model']}, {row['rows']} rows: sampling ÷ with an unmerged LoRA", 1.1, row["all"]["ours"], row["all"]["unmerged_lora"])
        elif row["what"] == "change":
            text = f"ComfyUI, {row['model']}: a strength change ÷ a LoRA’s re-patch of the same Linears"
            yield ratio_at_most(text, 0.1, row["all"]["ours_strength"], row["all"]["lora_same_sites"])
        elif row["what"] == "start":
            yield at_most("ComfyUI: seconds that the pack adds to the host’s start", 0.3, row["all"])
        elif row["what"] == "stop":
            yield at_most(f"ComfyUI: seconds from an interrupt to the end ({row['while']})", 2.0, row["all"])


def browser(results: Results) -> Iterator[Goal]:
    for result in results:
        for row in result["rows"]:
            if row["what"] != "nothing":
                text = f"Browser, {result['atoms']:,} atoms, {row['what']}: the panel’s own work in a frame, ms (median)"
                yield at_most(text, 16.7, [row["own_ms"]["median"]], f"run of {row['frames']} frames")
