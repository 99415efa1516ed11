"""The goals of E1 to E5, on the embedded base's world. Intervals are over concepts or pairs, each the mean of its seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from ..goal import Goal, Results, unit_means
from ..result_table import read_results
from ..runs import Run
from . import merging, shrinking
from .plans import MANY_ATOMS_LABEL, OURS_LABEL, QUIET_SUFFIX, label
from .tables import CUT, dial_rows, edit_rows

CONCEPTS, PAIRS = "concepts", "pairs"


def world_goals(results: Path) -> list[Goal]:
    """Those that there are results for."""
    return [
        *personalisation(read_results("E1", results)),
        *atoms_kept(read_results("E1", results)),
        *smaller_files(read_results("E2-shrink", results)),
        *pruned_edits(read_results("E3", results)),
        *edits_beside_lora(read_results("E3", results)),
        *merges(read_results("E4", results)),
        *dials(read_results("E5", results)),
    ]


def matched(results: Results, name: str) -> dict[tuple[str, int], Mapping[str, Any]]:
    """One method's results by concept and seed."""
    return {(r["run"]["concept"], r["run"]["seed"]): r for r in results if label(r["run"]) == name}


def ratios(results: Results, other: str, key: str, mine: str = OURS_LABEL) -> list[float]:
    """One method's over another's, concept by concept: sums over the seeds that both have."""
    ours, theirs = matched(results, mine), matched(results, other)
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


def personalisation(results: Results) -> Iterator[Goal]:
    peer = best_peer(results)
    for mine, prefix in shapes():
        if peer and (found := ratios(results, peer, "concept_fidelity", mine)):
            cause = "More numbers do not help (full fine-tuning has more and learns less), nor did other ranks, widths, rates and starts that were tried: what is left is what five pictures teach this base."
            yield Goal(f"E1{prefix}: concept fidelity ÷ the best peer’s ({peer})", 1.1, found, CONCEPTS, cause=cause)
        for other, bound in (("LoRA", 0.25), ("LoRA" + QUIET_SUFFIX, 0.6)):
            if found := ratios(results, other, "drift", mine):
                yield Goal(f"E1{prefix}: drift ÷ {other}’s", bound, found, CONCEPTS, at_least=False)


def shapes() -> list[tuple[str, str]]:
    """(label, what a goal's name adds): the default shape, and the one with many atoms."""
    return [(OURS_LABEL, ""), (MANY_ATOMS_LABEL, MANY_ATOMS_LABEL.removeprefix(OURS_LABEL))]


def atoms_kept(results: Results) -> Iterator[Goal]:
    for name, prefix in shapes():
        for share, bound in ((0.25, 0.99), (0.10, 0.96), (0.05, 0.90)):
            kept = [
                (r["run"]["concept"], row["concept_fidelity"] / r["concept_fidelity"])
                for r in results
                if label(r["run"]) == name
                for row in r.get("pruning", [])
                if row["order"] == "greedy" and row["share"] == share
            ]
            if kept:
                cause = "What a share of the atoms keeps follows how many atoms are left for each rank of the basis: the shape with more atoms and half the rank reaches it."
                yield Goal(f"E2{prefix}: fidelity kept by {share:.0%} of the atoms (greedy + refit)", bound, unit_means(kept), CONCEPTS, cause=cause)


def smaller_files(results: Results) -> Iterator[Goal]:
    own = next(iter(shrinking.WAYS))
    for share, bound in ((0.10, 0.95), (0.03, 0.80)):
        kept = [(r["run"]["concept"], r["kept"]) for r in results if r["run"]["way"] == own and r["run"]["share"] == share]
        if kept:
            cause = "A tenth of the numbers of rank 16 is a rank of 1.6 a site, and a few one-sided atoms hold less than a product of that rank: a LoRA with the quiet term that is trained at that size keeps more, at more drift (figure of E2)."
            yield Goal(f"E2: fidelity kept at {share:.0%} of the parameters (shrunk)", bound, unit_means(kept), CONCEPTS, cause=cause)
    compared = list(of_the_same_size(results, own))
    if compared:
        beaten = [mine for mine, others in compared if any(o["concept_fidelity"] > mine["concept_fidelity"] and o["drift"] < mine["drift"] for o in others)]
        text = f"E2: sizes at which some LoRA is better in both fidelity and drift, of {len(compared)} (concept, seed and size; no LoRA is as small as 2 %)"
        where = "; ".join(f"{r['run']['concept']}, seed {r['run']['seed']}, at {r['run']['share']:.0%}" for r in beaten)
        yield Goal(text, 0.0, [float(len(beaten))], "count over all", at_least=False, cause=f"Single runs ({where}); their means are in the table.")


def of_the_same_size(results: Results, own: str) -> Iterator[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]:
    """Each of our small files with the LoRAs of its size, where there are some."""
    for mine in (r for r in results if r["run"]["way"] == own):
        others = [r for r in results if r["run"]["way"] != own and all(r["run"][key] == mine["run"][key] for key in ("share", "concept", "seed"))]
        if others:
            yield mine, others


def pruned_edits(results: Results) -> Iterator[Goal]:
    """A tenth of the atoms against all of them, pair by pair, after as many steps as the preset's."""
    better, calmer = [], []
    worse = same = 0
    for run in (r for r in results if r["run"]["method"] == "ours" and r["run"]["steps"] == Run("ours", "", 0).steps):
        whole, tenth = run["rows"][0], next(row for row in run["rows"] if row["share"] == 0.10)
        pairs = list(zip(whole["followed"], tenth["followed"], strict=True))
        better.append((run["run"]["concept"], sum(b > a for a, b in pairs) / len(pairs)))
        worse, same = worse + sum(b < a for a, b in pairs), same + sum(b == a for a, b in pairs)
        if "outside" in whole:
            nearer = sum(b > a for a, b in zip(whole["outside"], tenth["outside"], strict=True))
            calmer.append((run["run"]["concept"], nearer / len(pairs)))
    if better:
        text = f"E3: pairs in which 10 % of the atoms follow the prompt better than all (in {same} pairs as well, in {worse} worse)"
        cause = "The reader answers in halves (place, background), and the whole adapter already follows nearly every prompt, so nearly all pairs are alike; of those that differ fewer get better."
        yield Goal(text, 0.8, unit_means(better), CONCEPTS, cause=cause)
    if calmer:
        text = "E3: pairs in which 10 % of the atoms come nearer to the base’s picture of the prompt, outside the subject, than all (our measure where the reader sees no difference)"
        yield Goal(text, 0.8, unit_means(calmer), CONCEPTS, cause="Where the prompt was followed by both, what is outside differs by little, and not always for the better.")


def edits_beside_lora(results: Results) -> Iterator[Goal]:
    """At the highest prompt fidelity that both reach, over all edits: who keeps more of the subject? LoRA at its best strength, uncut."""
    groups = edit_rows(results)

    def mean(at: tuple[str, str], key: str) -> float:
        values = [value for row in groups[at] for value in row[key]]
        return sum(values) / len(values)

    mine = [at for at in groups if at[0].startswith(OURS_LABEL)]
    if not mine:
        return
    for kind in sorted({name for name, _ in groups if not name.startswith(OURS_LABEL) and CUT not in name}):
        theirs = [at for at in groups if at[0] == kind]
        best = min(max(mean(at, "followed") for at in ways) for ways in (mine, theirs))
        ours, peer = (max((at for at in ways if mean(at, "followed") >= best), key=lambda at: mean(at, "kept")) for ways in (mine, theirs))
        kept = {row["of"]: row["kept"] for row in groups[peer]}
        more = [
            (row["of"][0], sum(a - b for a, b in zip(row["kept"], kept[row["of"]], strict=True)) / len(row["kept"]))
            for row in groups[ours]
            if row["of"] in kept
        ]
        text = (
            f"E3: subject kept by ours ({', '.join(ours)}) − by {kind} ({peer[1]}), over all edits, at the best prompt fidelity of both "
            f"({best:.2f}); {mean(ours, 'kept') / max(mean(peer, 'kept'), 1e-9):.2f} ×"
        )
        cause = "Not found. More strength helped one concept and harmed another; fewer steps help the LoRA more than ours."
        yield Goal(text, 0.0, unit_means(more), CONCEPTS, cause=cause)


def merges(results: Results) -> Iterator[Goal]:
    for kind in merging.STRENGTHS:
        ways: dict[str, dict[tuple, Mapping[str, Any]]] = {}
        for r in results:
            run = r["run"]
            if merging.kind_of(run["second"]) == kind:
                ways.setdefault(run["way"], {})[run["first"], run["second"], run["seed"]] = r
        kept = {way: {at: min(r["kept_each"]) for at, r in of.items()} for way, of in ways.items()}
        means = {way: sum(values.values()) / len(values) for way, values in kept.items()}
        ours, peers = ([way for way in means if way.startswith(name)] for name in (OURS_LABEL, "LoRA"))
        # The one that trains on, and the best of those that, like LoRA's, only put together.
        plain = [way for way in ours if merging.WAYS[way][1] != "heal"]
        for mine in dict.fromkeys(max(group, key=lambda way: means[way]) for group in (ours, plain) if group):
            how = mine.partition(", ")[2] + (f" ({merging.HEAL_STEPS} further steps, which no LoRA got)" if mine not in plain else "")
            cause = cause_of_merge(kind, mine in plain, kept[mine])
            yield Goal(f"E4: {kind}, {how}: what the one that keeps less keeps", 0.9, by_pair(kept[mine]), PAIRS, cause=cause)
            if not peers:
                continue
            best = max(peers, key=lambda way: means[way])
            shared = [at for at in kept[mine] if at in kept[best]]
            less = {at: kept[mine][at] - kept[best][at] for at in shared}
            yield Goal(f"E4: {kind}, {how}: the same − the best of LoRA’s ({best}); {means[mine] / max(means[best], 1e-9):.2f} ×", 0.0, by_pair(less), PAIRS, cause=cause)
            for number, member in enumerate(("first", "second")):
                more = {at: ways[mine][at]["merged"][number] - ways[best][at]["merged"][number] for at in shared}
                yield Goal(f"E4: {kind}, {how}: the {member}’s fidelity in the merge − the same LoRA’s", 0.0, by_pair(more), PAIRS, cause=cause)


def cause_of_merge(kind: str, plain: bool, kept: Mapping[tuple, float]) -> str:
    if kind != merging.CONCEPTS:
        return "A style acts on every prompt, so both change the same tokens at the same sites, and each reads the other’s change."
    if plain:
        return "Side by side each adapter also answers to the other’s word, which its training never held; healing is the remedy."
    means = {pair: fmean(value for at, value in kept.items() if at[:2] == pair) for pair in {at[:2] for at in kept}}
    weakest = min(means, key=lambda pair: means[pair])
    return f"Not found; {' and '.join(weakest)} keep least, {means[weakest]:.2f}."


def by_pair(found: Mapping[tuple, float]) -> list[float]:
    return unit_means((at[:2], value) for at, value in found.items())


def dials(results: Results) -> Iterator[Goal]:
    """The shares of atoms; the strength is no goal of its own, as every adapter has one."""
    cause = {
        "importance": "A few atoms carry most of a concept: a single one more can overshoot for a while, until those that balance it follow.",
        "greedy": "The order is made to keep all with few: from a tenth of the atoms on nothing is left to turn up, and noise decides the ranks.",
    }
    for key, name in (("importance", "by importance"), ("greedy", "in the greedy order, refitted")):
        group = dial_rows(results).get((OURS_LABEL, key), [])
        if group:
            yield Goal(f"E5: Spearman of the slider, {name}", 0.98, unit_means((r["concept"], r["spearman"]) for r in group), CONCEPTS, cause=cause[key])
