"""The goals for speed: at real widths, in ComfyUI and in the browser, as ratios of one run where they compare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .runs import read_results

Results = Sequence[Mapping[str, Any]]
Row = tuple[str, float, Sequence[float]]  # goal, at most this, values


def speed_goals(results: Path) -> list[Row]:
    """Those that there are results for."""
    return [*layer(read_results("E7-layer", results)), *host(read_results("E7-host", results)), *browser(read_results("E8-front-end", results))]


def layer(results: Results) -> Iterator[Row]:
    for result in results:
        rows = result["rows"]
        for row in rows:
            where = ", ".join([f"E7, {result['model']} on {result['device']}", *([row["dtype"]] if "dtype" in row else [])])
            if row["what"] == "steps" and row["training"]:
                yield f"{where}: a training step ÷ peft LoRA’s, no more numbers than it", 1.0, rounds(row, "ours_equal", "lora")
            elif row["what"] == "sites":
                step = next((r for r in rows if r["what"] == "steps" and r["training"] == row["training"] and r["dtype"] == row["dtype"]), None)
                added = {name: [a - b for a, b in zip(times, row["all"]["base"], strict=True)] for name, times in row["all"].items()}
                what = "trained" if row["training"] else "added to a sampling step"
                if not row["training"] and step is not None and "ours_256" in added:
                    whole = step["seconds"]["base"]
                    yield f"{where}: what 256 atoms add to a sampling step ÷ the base’s step", 0.05, [t / whole for t in added["ours_256"]]
                    yield f"{where}: the same ÷ what unmerged peft LoRA of rank 16 adds (fewer numbers)", 1.0, [
                        a / b for a, b in zip(added["ours_256"], added["lora"], strict=True)
                    ]
                yield f"{where}: what is {what} at the sites ÷ unmerged peft LoRA’s, no more numbers than it", 1.0, [
                    a / b for a, b in zip(added["ours_equal"], added["lora"], strict=True)
                ]
            elif row["what"] == "change":
                seconds = row["all"]
                calls = seconds["calls alone"]
                yield f"{where}: a new selection at all {row['sites']} sites, ms", 10.0, [1e3 * (a - b) for a, b in zip(seconds["selection"], calls, strict=True)]
                yield f"{where}: the file at 10 % of the parameters ÷ the whole one", 0.12, [row["bytes"]["10% of the parameters"] / row["bytes"]["100% of the atoms"]]


def rounds(row: Mapping[str, Any], name: str, over: str) -> list[float]:
    return [a / b for a, b in zip(row["all"][name], row["all"][over], strict=True)]


def host(results: Results) -> Iterator[Row]:
    rows = [row for result in results for row in result["rows"]]
    for row in rows:
        if row["what"] == "training" and "seconds" in row:
            recomputed = ", recomputed blocks" if row["checkpointing"] else ""
            yield f"ComfyUI, {row['model']} {row['dtype']}, batch {row['batch']}{recomputed}: a training step ÷ TrainLoraNode’s", 1.0, rounds(row, "ours", "host")
        elif row["what"] == "sampling":
            yield f"ComfyUI, {row['model']}, {row['rows']} rows: sampling ÷ with an unmerged LoRA", 1.1, rounds(row, "ours", "unmerged_lora")
        elif row["what"] == "change":
            yield f"ComfyUI, {row['model']}: a strength change ÷ a LoRA’s re-patch of the same Linears", 0.1, rounds(row, "ours_strength", "lora_same_sites")
        elif row["what"] == "start":
            yield "ComfyUI: seconds that the pack adds to the host’s start", 0.3, row["all"]
        elif row["what"] == "stop":
            yield f"ComfyUI: seconds from an interrupt to the end ({row['while']})", 2.0, row["all"]


def browser(results: Results) -> Iterator[Row]:
    for result in results:
        for row in result["rows"]:
            if row["what"] != "nothing":
                yield f"Browser, {result['atoms']:,} atoms, {row['what']}: the panel’s own work in a frame, ms (median)", 16.7, [row["own_ms"]["median"]]
