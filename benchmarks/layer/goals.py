"""The goals for speed at real widths, as ratios of one run where they compare."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..goal import Goal, Results, at_most, ratio_at_most
from ..result_table import read_results

TRAINED = "A threshold, its gate and the sparsity’s terms are more small operations than LoRA’s two products; of a whole step they are little (tables E7)."
SAMPLED = "Both add so little to a step that the clock’s noise decides; ours has its threshold besides the two products."


def layer_goals(results: Path) -> list[Goal]:
    """Those that there are results for."""
    return list(layer(read_results("E7-layer", results)))


def layer(results: Results) -> Iterator[Goal]:
    for result in results:
        rows = result["rows"]
        for row in rows:
            where = ", ".join([f"E7, {result['model']} on {result['device']}", *([row["dtype"]] if "dtype" in row else [])])
            if row["what"] == "steps" and row["training"]:
                yield ratio_at_most(f"{where}: a training step ÷ peft LoRA’s, no more numbers than it", 1.0, row["all"]["ours_equal"], row["all"]["lora"], TRAINED)
            elif row["what"] == "sites":
                step = next((r for r in rows if r["what"] == "steps" and r["training"] == row["training"] and r["dtype"] == row["dtype"]), None)
                added = {name: [a - b for a, b in zip(times, row["all"]["base"], strict=True)] for name, times in row["all"].items()}
                what = "trained" if row["training"] else "added to a sampling step"
                if not row["training"] and step is not None and "ours_256" in added:
                    whole = step["seconds"]["base"]
                    yield at_most(f"{where}: what 256 atoms add to a sampling step ÷ the base’s step", 0.05, [t / whole for t in added["ours_256"]])
                    yield ratio_at_most(f"{where}: the same ÷ what unmerged peft LoRA of rank 16 adds (fewer numbers)", 1.0, added["ours_256"], added["lora"], SAMPLED)
                yield ratio_at_most(
                    f"{where}: what is {what} at the sites ÷ unmerged peft LoRA’s, no more numbers than it", 1.0, added["ours_equal"], added["lora"],
                    TRAINED if row["training"] else SAMPLED,
                )  # fmt: skip
            elif row["what"] == "change":
                seconds = row["all"]
                calls = seconds["calls alone"]
                yield at_most(f"{where}: a new selection at all {row['sites']} sites, ms", 10.0, [1e3 * (a - b) for a, b in zip(seconds["selection"], calls, strict=True)])
                small = row["bytes"]["10% of the parameters"] / row["bytes"]["100% of the atoms"]
                yield at_most(f"{where}: the file at 10 % of the parameters ÷ the whole one", 0.12, [small], "file")
