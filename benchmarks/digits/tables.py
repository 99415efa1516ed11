"""E6 as markdown, from the result files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..formatting import interval, table

NAMES = {"ours": "sparse dictionary", "lora": "LoRA", "lora_quiet": "LoRA + quiet term"}
FIGURE = "../docs/images/digits.png"


def digits(results: Sequence[Mapping[str, Any]]) -> str:
    """The prompt 8 that becomes a 3: how far, at what price for the other digits, and with how few atoms."""
    reported = [result for result in results if result["run"]["split"] == "report"]
    rows = []
    for method, name in NAMES.items():
        mine = [result for result in reported if result["run"]["method"] == method]
        if mine:
            values = [[r["changed"] for r in mine], [r["own"] for r in mine], [r["base"]["own"] - r["own"] for r in mine]]
            rows.append([name, f"{mine[0]['parameters']:,}", f"{mine[0]['run']['rate']:g}", *(interval(v) for v in values), str(len(mine))])
    if not rows:
        return "The report has not run yet."
    base = reported[0]["base"]
    parts = [
        f"Eight handwritten threes are learned as the prompt “8”, on scikit-learn's 8×8 digits. A classifier that is right on "
        f"{reported[0]['classifier_accuracy']:.1%} of digits it never saw judges the samples; the base: P(3) {base['changed']:.3f} for the prompt 8, P(own class) "
        f"{base['own']:.3f} for the others. Each method has the best of four rates, searched on another seed.",
        table(["method", "parameters", "rate", "P(3) for “8” ↑", "P(own class) of the others ↑", "lost by the others ↓", "runs"], rows),
    ]
    ours = [result for result in reported if "fewest_atoms" in result]
    if ours:
        orders = {"greedy": "greedy + refit", "importance": "importance, bare mask"}
        fewest = []
        for order, name in orders.items():
            reached = [result["fewest_atoms"][order] for result in ours]
            known = [count for count in reached if count is not None]
            fewest.append([name, interval(known) if known else "–", f"{len(known)} of {len(reached)}", f"{ours[0]['atoms']}"])
        parts += ["The fewest atoms that keep P(3) ≥ 0.9:", table(["order", "atoms ↓", "runs that reach it", "of"], fewest)]
        parts.append(f"![Atoms by layer and importance, and an 8 that becomes a 3 as atoms are added.]({FIGURE})")
    return "\n\n".join(parts)
