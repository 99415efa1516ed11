"""The tables of E1 to E5, from their result files."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from ..formatting import interval, table
from ..goal import Results
from . import merging, shrinking, slider
from .plans import OURS_LABEL, label

LIKENESS = ("cosine", "diversity")
REFERENCES = {"rendered": "(the renderer, drawn again)", "base": "(the base, which doesn’t know the word)"}
CUT, CUT_NAMES = ", cut by ", {"svd": "SVD", "magnitude": "magnitude"}


def by_label(results: Results) -> dict[str, list[Mapping[str, Any]]]:
    """Ours first, then by name."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault(label(result["run"]), []).append(result)
    return dict(sorted(groups.items(), key=lambda item: (not item[0].startswith(OURS_LABEL), item[0])))


def personalisation_table(results: Results) -> str:
    """Means over a method's runs; as not all methods have the same ones, ours is shown on each one's beside it."""
    groups, at = by_label(results), lambda result: (result["run"]["concept"], result["run"]["seed"])
    ours = {at(result): result["concept_fidelity"] for result in groups.get(OURS_LABEL, [])}
    rows = []
    for name, group in groups.items():
        run, same = group[0]["run"], [ours[at(result)] for result in group if at(result) in ours]
        rate = "preset" if run["learning_rate"] is None else f"{run['learning_rate']:g}"
        rows.append(
            [name, f"{group[0]['parameters']:,}", rate, f"{run['quiet_weight']:g}" if run["quiet_weight"] is not None else "preset",
             interval([result["concept_fidelity"] for result in group]), f"{sum(same) / len(same):.3f}" if same else "–"]
            + [interval([result[key] for result in group]) for key in ("prompt_fidelity", "drift", "flipped")]
            + [str(len(group))]
        )  # fmt: skip
    return table(["method", "parameters", "rate", "quiet weight", "concept fidelity ↑", "ours on the same runs", "prompt fidelity ↑", "drift ↓", "attributes flipped ↓", "runs"], rows)


def likeness_table(results: Results) -> str:
    """A learned embedding's view, between the bare base and the renderer."""
    rows = []
    for name, title in REFERENCES.items():
        by_concept = {result["run"]["concept"]: result[name] for result in results}
        rows.append([title, *(interval([found[key] for found in by_concept.values()]) for key in LIKENESS), "–"])
    for name, group in by_label(results).items():
        rows.append([name, *(interval([result[key] for result in group]) for key in LIKENESS), str(len(group))])
    return table(["method", "cosine to the renderer’s ↑", "diversity of one prompt’s", "runs"], rows)


def pruning_table(results: Results) -> str:
    """What a share of the atoms keeps of the whole adapter's fidelity, run by run."""
    rows = []
    for shape, group in by_label([result for result in results if "pruning" in result]).items():
        for order in ("importance", "greedy"):
            for share in [row["share"] for row in group[0]["pruning"] if row["order"] == order]:
                picked = [(r["concept_fidelity"], next(p for p in r["pruning"] if p["order"] == order and p["share"] == share)) for r in group]
                name = "greedy + refit" if order == "greedy" else "importance, bare mask"
                rows.append(
                    [shape, name, f"{share:.0%}", interval([p["concept_fidelity"] / whole for whole, p in picked]),
                     interval([p["concept_fidelity"] for _, p in picked]), interval([p["drift"] for _, p in picked])]
                )  # fmt: skip
    return table(["adapter", "order", "atoms kept", "fidelity kept ↑", "concept fidelity ↑", "drift ↓"], rows)


def shrink_table(results: Results) -> str:
    """What a smaller file keeps, by way and size."""
    rows = []
    for way in shrinking.WAYS:
        for share in shrinking.SHARES:
            group = [r for r in results if r["run"]["way"] == way and r["run"]["share"] == share]
            if group:
                rows.append(
                    [way, f"{share:.0%}", f"{sum(r['parameters'] for r in group) / len(group):,.0f}", interval([r["kept"] for r in group]),
                     interval([r["concept_fidelity"] for r in group]), interval([r["drift"] for r in group]), str(len(group))]
                )  # fmt: skip
    return table(["made small", "of the parameters", "parameters", "fidelity kept ↑", "concept fidelity ↑", "drift ↓", "runs"], rows)


def edit_name(run: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Ours or LoRA, how long it was trained, and how it was cut where it was."""
    name = f"{'sparse dictionary' if run['method'] == 'ours' else 'LoRA'}, {run['steps']} steps"
    return f"{name}{CUT}{CUT_NAMES[row['cut']]}" if "cut" in row else name


def edit_point(row: Mapping[str, Any]) -> str:
    """How much of it was left."""
    if "strength" in row:
        return f"strength {row['strength']:g}"
    return f"{row['share']:.0%} of the {'numbers' if 'cut' in row else 'atoms'}"


def edit_rows(results: Results) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """(method, share or strength) → the rows of all runs, each with its run's concept and seed."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for result in results:
        for row in result["rows"]:
            at = edit_name(result["run"], row), edit_point(row)
            groups.setdefault(at, []).append({**row, "of": (result["run"]["concept"], result["run"]["seed"])})
    return groups


def edit_table(results: Results) -> str:
    """How far edits follow the prompt, and keep the subject."""
    by_prompt, names = ("outside", "structure"), ("subject_kept", "prompt_fidelity", "subject_kept_moved", "prompt_fidelity_moved", "drift")
    rows = [
        [name, at, *(interval([row[key] for row in group]) for key in names), *(interval([fmean(row[key]) for row in group]) for key in by_prompt), str(len(group))]
        for (name, at), group in sorted(edit_rows(results).items(), key=lambda item: (not item[0][0].startswith(OURS_LABEL), CUT in item[0][0]))
    ]
    return table(["method", "at", "subject kept ↑", "prompt followed ↑", "subject kept, moved ↑", "prompt followed, moved ↑", "drift ↓", "outside as the base’s, dB ↑", "the same, SSIM ↑", "runs"], rows)


def merge_table(results: Results) -> str:
    """What each member keeps in the merge of what it does alone on the same prompts, and what that is."""
    rows = []
    for way in merging.WAYS:
        for title in merging.STRENGTHS:
            group = [r for r in results if r["run"]["way"] == way and merging.kind_of(r["run"]["second"]) == title]
            if group:
                strengths = merging.MergeRun(**group[0]["run"]).strengths
                figures = [interval([r[key][i] for r in group]) for i in (0, 1) for key in ("kept_each", "alone", "merged")]
                rows.append([way, title, " / ".join(f"{s:g}" for s in strengths), *figures, str(len(group))])
    members = [f"the {member} {what}" for member in ("first", "second") for what in ("keeps ↑", "alone", "in the merge ↑")]
    return table(["merged", "what", "strengths", *members, "runs"], rows)


def dial_rows(results: Results) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """(method, dial) → what each run's dial did, with its concept."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for result in results:
        for dial, found in result["dials"].items():
            groups.setdefault((label(result["run"]), dial), []).append({**found, "concept": result["run"]["concept"]})
    return groups


def dial_table(results: Results) -> str:
    """Rank correlation and largest jump."""
    rows = [
        [name, slider.DIALS[dial], interval([r["spearman"] for r in group]), interval([r["largest_jump"] for r in group]), str(len(group))]
        for (name, dial), group in sorted(dial_rows(results).items(), key=lambda item: (item[0][0] != OURS_LABEL, item[0][0]))
    ]
    return table(["method", "dial", "Spearman ↑", "largest jump, of the whole way ↓", "runs"], rows)


def search_table(results: Results) -> str:
    rows = []
    for result in sorted(results, key=lambda r: (label(r["run"]), r["run"]["concept"])):
        run = result["run"]
        rows.append(
            [label(run), run["concept"], "preset" if run["learning_rate"] is None else f"{run['learning_rate']:g}",
             f"{run['quiet_weight']:g}", ", ".join(f"{k} {v:g}" for k, v in run["settings"].items()) or "–",
             f"{result['concept_fidelity']:.3f}", f"{result['drift']:.3f}"]
        )  # fmt: skip
    return table(["method", "concept", "rate", "quiet weight", "other", "concept fidelity ↑", "drift ↓"], rows)
