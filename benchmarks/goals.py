"""Each goal of the evidence: what was found, with its interval, and whether that reaches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import merging, shrinking
from .formatting import half_interval, interval, table
from .plans import MANY_ATOMS_LABEL, OURS_LABEL, QUIET_SUFFIX, label
from .runs import read_results
from .speed_goals import speed_goals
from .world_tables import dial_rows, edit_rows

Results = Sequence[Mapping[str, Any]]
Found = list[tuple[str, str, Sequence[float], Callable[[float], bool]]]  # goal, bound in words, values, whether a mean reaches it


def at_least(bound: float) -> tuple[str, Callable[[float], bool]]:
    return f"≥ {bound:g}", lambda mean: mean >= bound


def at_most(bound: float) -> tuple[str, Callable[[float], bool]]:
    return f"≤ {bound:g}", lambda mean: mean <= bound


def matched(results: Results, name: str) -> dict[tuple[str, int], Mapping[str, Any]]:
    """One method's results by concept and seed."""
    return {(r["run"]["concept"], r["run"]["seed"]): r for r in results if label(r["run"]) == name}


def ratios(results: Results, other: str, key: str) -> list[float]:
    """Ours over another method's, concept by concept (means over the seeds that both have): seeds of a concept are no independent worlds."""
    ours, theirs = matched(results, OURS_LABEL), matched(results, other)
    found = []
    for concept in sorted({c for c, _ in ours} & {c for c, _ in theirs}):
        seeds = [at for at in ours if at[0] == concept and at in theirs]
        if seeds:
            found.append(sum(ours[at][key] for at in seeds) / max(sum(theirs[at][key] for at in seeds), 1e-9))
    return found


def best_peer(results: Results) -> str | None:
    """The peer of the highest mean fidelity, relative to ours on the same concepts and seeds; full fine-tuning has more parameters."""
    names = {label(r["run"]) for r in results} - {OURS_LABEL, MANY_ATOMS_LABEL}
    names = {name for name in names if not name.startswith("full")}
    means = {name: sum(found) / len(found) for name in names if (found := ratios(results, name, "concept_fidelity"))}
    return min(means, key=lambda name: means[name]) if means else None


def personalisation(results: Results) -> Found:
    rows: Found = []
    peer = best_peer(results)
    if peer:
        rows.append((f"E1: concept fidelity ÷ the best peer’s ({peer})", *_with(at_least(1.1), ratios(results, peer, "concept_fidelity"))))
    for other, bound in (("LoRA", 0.25), ("LoRA" + QUIET_SUFFIX, 0.6)):
        found = ratios(results, other, "drift")
        if found:
            rows.append((f"E1: drift ÷ {other}’s", *_with(at_most(bound), found)))
    for name, prefix in ((OURS_LABEL, "E2"), (MANY_ATOMS_LABEL, f"E2{MANY_ATOMS_LABEL.removeprefix(OURS_LABEL)}")):
        for share, bound in ((0.25, 0.99), (0.10, 0.96), (0.05, 0.90)):
            kept = [
                row["concept_fidelity"] / r["concept_fidelity"]
                for r in results
                if label(r["run"]) == name
                for row in r.get("pruning", [])
                if row["order"] == "greedy" and row["share"] == share
            ]
            if kept:
                rows.append((f"{prefix}: fidelity kept by {share:.0%} of the atoms (greedy + refit)", *_with(at_least(bound), kept)))
    return rows


def _with(bound: tuple[str, Callable[[float], bool]], values: Sequence[float]) -> tuple[str, Sequence[float], Callable[[float], bool]]:
    return bound[0], values, bound[1]


def shrinking_goals(results: Results) -> Found:
    rows: Found = []
    own = next(iter(shrinking.WAYS))
    for share, bound in ((0.10, 0.95), (0.03, 0.80)):
        kept = [r["kept"] for r in results if r["run"]["way"] == own and r["run"]["share"] == share]
        if kept:
            rows.append((f"E2: fidelity kept at {share:.0%} of the parameters (shrunk)", *_with(at_least(bound), kept)))
    beaten = []
    for mine in (r for r in results if r["run"]["way"] == own):
        others = [
            r
            for r in results
            if r["run"]["way"] != own and all(r["run"][key] == mine["run"][key] for key in ("share", "concept", "seed"))
        ]
        if others:
            beaten.append(float(any(o["concept_fidelity"] > mine["concept_fidelity"] and o["drift"] < mine["drift"] for o in others)))
    if beaten:
        rows.append(("E2: share of sizes where a LoRA is better in both fidelity and drift", *_with(at_most(0.0), beaten)))
    return rows


def pruned_edit_goals(results: Results) -> Found:
    """A tenth of the atoms against all of them, pair by pair."""
    rows: Found = []
    better, strict, calmer = [], [], []
    for result in results:
        if result["run"]["method"] != "ours":
            continue
        first, tenth = result["rows"][0], next(r for r in result["rows"] if r["share"] == 0.10)
        whole, pruned = first["followed"], tenth["followed"]
        if "outside" in first:
            calmer.append(sum(b > a for a, b in zip(first["outside"], tenth["outside"], strict=True)) / len(whole))
        pairs = list(zip(whole, pruned, strict=True))
        better.append(sum(b >= a for a, b in pairs) / len(pairs))
        differ = [(a, b) for a, b in pairs if a != b]
        if differ:
            strict.append(sum(b > a for a, b in differ) / len(differ))
    if better:
        rows.append(("E3: pairs in which 10 % of the atoms follow the prompt at least as well as all", *_with(at_least(0.8), better)))
    if calmer:
        rows.append(("E3: pairs in which 10 % of the atoms come nearer to the base’s picture of the prompt, outside the subject, than all", *_with(at_least(0.8), calmer)))
    if strict:
        rows.append(("E3: … better, of the pairs that differ at all", *_with(at_least(0.8), strict)))
    return rows


def edit_goals_beside_lora(results: Results) -> Found:
    """At the highest prompt fidelity that both reach: who keeps more of the subject?"""
    rows: Found = []
    groups = edit_rows(results)
    means = {at: {k: sum(r[k] for r in group) / len(group) for k in ("subject_kept", "prompt_fidelity")} for at, group in groups.items()}
    mine = [at for at in means if at[0].startswith(OURS_LABEL)]
    if not mine:
        return rows
    for kind in sorted({name for name, _ in means if not name.startswith(OURS_LABEL)}):
        theirs = [at for at in means if at[0] == kind]
        best = min(max(means[at]["prompt_fidelity"] for at in ways) for ways in (mine, theirs))
        ours, peer = (max((at for at in ways if means[at]["prompt_fidelity"] >= best), key=lambda at: means[at]["subject_kept"]) for ways in (mine, theirs))
        times = means[ours]["subject_kept"] / max(means[peer]["subject_kept"], 1e-9)
        kept = {row["of"]: row["subject_kept"] for row in groups[peer]}
        more = [row["subject_kept"] - kept[row["of"]] for row in groups[ours] if row["of"] in kept]
        rows.append((f"E3: subject kept − that of {kind}, at the best prompt fidelity of both ({best:.2f}); {times:.2f} ×", *_with(at_least(0.0), more)))
    return rows


def merging_goals(results: Results) -> Found:
    rows: Found = []
    for title in merging.STRENGTHS:
        kept: dict[str, dict[tuple, float]] = {}
        for r in results:
            if merging.kind_of(r["run"]["second"]) == title:
                kept.setdefault(r["run"]["way"], {})[r["run"]["first"], r["run"]["second"], r["run"]["seed"]] = min(r["kept_each"])
        means = {way: sum(values.values()) / len(values) for way, values in kept.items()}
        ours, peers = ([way for way in means if way.startswith(name)] for name in (OURS_LABEL, "LoRA"))
        if not ours:
            continue
        mine = max(ours, key=lambda way: means[way])
        rows.append((f"E4: {title}, {mine.partition(', ')[2]}: what the one that keeps less keeps", *_with(at_least(0.9), list(kept[mine].values()))))
        if peers:
            best = max(peers, key=lambda way: means[way])
            more = [value - kept[best][pair] for pair, value in kept[mine].items() if pair in kept[best]]
            times = means[mine] / max(means[best], 1e-9)
            rows.append((f"E4: {title}: the same − the best of LoRA’s ({best}); {times:.2f} ×", *_with(at_least(0.0), more)))
    return rows


def dial_goals(results: Results) -> Found:
    """The shares of atoms; the strength is no goal of its own, as every adapter has one."""
    dials = dial_rows(results)
    found = {dial: dials.get((OURS_LABEL, key), []) for dial, key in (("by importance", "importance"), ("in the greedy order, refitted", "greedy"))}
    return [(f"E5: Spearman of the slider, {dial}", *_with(at_least(0.98), [r["spearman"] for r in group])) for dial, group in found.items() if group]


def goals_table(results: Path) -> str:
    """All goals that there are results for; the peers’ figures are in the tables below. Intervals of speeds are over the rounds of one run."""
    rows = [
        *personalisation(read_results("E1", results)),
        *shrinking_goals(read_results("E2-shrink", results)),
        *pruned_edit_goals(read_results("E3", results)),
        *edit_goals_beside_lora(read_results("E3", results)),
        *merging_goals(read_results("E4", results)),
        *dial_goals(read_results("E5", results)),
        *((goal, *_with(at_most(bound), values)) for goal, bound, values in speed_goals(results)),
    ]
    cells = []
    for goal, bound, values, reached in rows:
        mean, half = sum(values) / len(values), half_interval(values)
        state = "reached" if reached(mean) else "missed"
        if half is not None and reached(mean - half) != reached(mean + half):
            state += ", within the interval"
        cells.append([goal, bound, interval(values), str(len(values)), state])
    return table(["goal", "bound", "found", "values", "state"], cells)
