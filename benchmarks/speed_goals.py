"""The goals for speed: at real widths, in ComfyUI and in the browser, as ratios of one run where they compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from .goal import Goal, Results, ratio_of_means
from .runs import read_results

ROUNDS = "rounds"
TRAINED = "A threshold, its gate and the sparsity’s terms are more small operations than LoRA’s two products; of a whole step they are little (tables E7)."
SAMPLED = "Both add so little to a step that the clock’s noise decides; ours has its threshold besides the two products."


def speed_goals(results: Path) -> list[Goal]:
    """Those that there are results for."""
    return [*layer(read_results("E7-layer", results)), *host(read_results("E7-host", results)), *browser(read_results("E8-front-end", results))]


def at_most(text: str, bound: float, values: Sequence[float], unit: str = ROUNDS, cause: str = "") -> Goal:
    return Goal(text, bound, values, unit, at_least=False, cause=cause)


def ratio(text: str, bound: float, over: Sequence[float], under: Sequence[float], cause: str = "") -> Goal:
    """Of what took turns, paired round by round."""
    estimate, values = ratio_of_means(over, under)
    return Goal(text, bound, values, ROUNDS, at_least=False, estimate=estimate, cause=cause)


def layer(results: Results) -> Iterator[Goal]:
    for result in results:
        rows = result["rows"]
        for row in rows:
            where = ", ".join([f"E7, {result['model']} on {result['device']}", *([row["dtype"]] if "dtype" in row else [])])
            if row["what"] == "steps" and row["training"]:
                yield ratio(f"{where}: a training step ÷ peft LoRA’s, no more numbers than it", 1.0, row["all"]["ours_equal"], row["all"]["lora"], TRAINED)
            elif row["what"] == "sites":
                step = next((r for r in rows if r["what"] == "steps" and r["training"] == row["training"] and r["dtype"] == row["dtype"]), None)
                added = {name: [a - b for a, b in zip(times, row["all"]["base"], strict=True)] for name, times in row["all"].items()}
                what = "trained" if row["training"] else "added to a sampling step"
                if not row["training"] and step is not None and "ours_256" in added:
                    whole = step["seconds"]["base"]
                    yield at_most(f"{where}: what 256 atoms add to a sampling step ÷ the base’s step", 0.05, [t / whole for t in added["ours_256"]])
                    yield ratio(f"{where}: the same ÷ what unmerged peft LoRA of rank 16 adds (fewer numbers)", 1.0, added["ours_256"], added["lora"], SAMPLED)
                yield ratio(
                    f"{where}: what is {what} at the sites ÷ unmerged peft LoRA’s, no more numbers than it", 1.0, added["ours_equal"], added["lora"],
                    TRAINED if row["training"] else SAMPLED,
                )  # fmt: skip
            elif row["what"] == "change":
                seconds = row["all"]
                calls = seconds["calls alone"]
                yield at_most(f"{where}: a new selection at all {row['sites']} sites, ms", 10.0, [1e3 * (a - b) for a, b in zip(seconds["selection"], calls, strict=True)])
                small = row["bytes"]["10% of the parameters"] / row["bytes"]["100% of the atoms"]
                yield at_most(f"{where}: the file at 10 % of the parameters ÷ the whole one", 0.12, [small], "file")


def host(results: Results) -> Iterator[Goal]:
    rows = [row for result in results for row in result["rows"]]
    for row in rows:
        if row["what"] == "training" and "seconds" in row:
            recomputed = ", recomputed blocks" if row["checkpointing"] else ""
            text = f"ComfyUI, {row['model']} {row['dtype']}, batch {row['batch']}{recomputed}: a training step ÷ TrainLoraNode’s of rank {row['host_rank']}"
            yield ratio(text, 1.0, row["all"]["ours"], row["all"]["host"])
        elif row["what"] == "sampling":
            yield ratio(f"ComfyUI, {row['model']}, {row['rows']} rows: sampling ÷ with an unmerged LoRA", 1.1, row["all"]["ours"], row["all"]["unmerged_lora"])
        elif row["what"] == "change":
            text = f"ComfyUI, {row['model']}: a strength change ÷ a LoRA’s re-patch of the same Linears"
            yield ratio(text, 0.1, row["all"]["ours_strength"], row["all"]["lora_same_sites"])
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
