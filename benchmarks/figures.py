"""The figures of RESULTS.md: fidelity against drift, edits, dials. Means of the result files; the tables beside them have the intervals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

from ..pictures.charts import ACCENT, FAINT, SECOND, figure, rendered
from .goal import Results
from .result_table import read_results
from .world import shrinking, slider
from .world.plans import MANY_ATOMS_LABEL, OURS_LABEL, QUIET_SUFFIX
from .world.tables import CUT, CUT_NAMES, by_label, dial_rows, edit_rows

QUIET_COLOUR = "#8c6bb1"
NAME_WIDTH, NAME_HEIGHT = 0.09, 0.012  # of a method's name in the first figure, in its units
SIZES_DRAWN = {"shrink": "o-", "svd": "s--", "magnitude": "x:", "heal": "D-.", "small": "^:"}  # by how a file got small


def colour_of(name: str) -> str:
    if name.startswith(OURS_LABEL):
        return ACCENT
    return QUIET_COLOUR if QUIET_SUFFIX in name else SECOND


def write_figures(results: Path) -> dict[str, str]:
    """Draw into `images/` beside `results` what there are results for; returns the markdown that shows it, by the figure's name."""
    folder, shown = results.parent / "images", {}
    for name, (text, tables, draw) in FIGURES.items():
        found = [read_results(table, results) for table in tables]
        if all(found):
            folder.mkdir(exist_ok=True)
            rendered(draw(*found)).save(folder / f"{name}.png", optimize=True)
            shown[name] = f"![{text}](images/{name}.png)"
    return shown


def front(personalised: Results, shrunk: Results) -> Any:
    """Left: all methods, and ours as atoms go. Right: files of fewer numbers."""
    drawing = figure(11, 4.6)
    left, right = drawing.subplots(1, 2, sharey=True)
    draw_methods(left, personalised)
    draw_sizes(right, shrunk)
    return drawing


def place(results: Results) -> tuple[float, float]:
    """Drift and fidelity, the means."""
    return fmean(r["drift"] for r in results), fmean(r["concept_fidelity"] for r in results)


def draw_methods(axes: Any, results: Results) -> None:
    groups = by_label(results)
    points = {name: place(group) for name, group in groups.items()}
    for name, at in points.items():
        axes.plot(*at, "o", color=colour_of(name), ms=8 if name.startswith(OURS_LABEL) else 5)
        # A name goes to the side where no other method is near, else above or below its point.
        near = [(x - at[0], y) for other, (x, y) in points.items() if other != name and abs(y - at[1]) < NAME_HEIGHT and abs(x - at[0]) < NAME_WIDTH]
        above = (0, 6) if all(y <= at[1] for _, y in near) else (0, -12)
        if not any(distance >= 0 for distance, _ in near):
            offset, side = (6, -3), "left"
        elif not any(distance <= 0 for distance, _ in near):
            offset, side = (-6, -3), "right"
        else:
            offset, side = above, "center"
        if name.startswith(OURS_LABEL):
            offset, side = (4, 7), "left"
        short = name.replace(QUIET_SUFFIX, " + quiet").replace(OURS_LABEL, "ours")
        axes.annotate(short, at, xytext=offset, textcoords="offset points", fontsize=7.5, ha=side)
    for name, style in ((OURS_LABEL, "-"), (MANY_ATOMS_LABEL, "--")):
        rows = [row for r in groups.get(name, []) for row in r.get("pruning", []) if row["order"] == "greedy"]
        shares = sorted({row["share"] for row in rows}, reverse=True)
        line = [place([row for row in rows if row["share"] == share]) for share in shares]
        if line:
            axes.plot(*zip(*line, strict=True), style, color=ACCENT, lw=1)
    axes.set(title="At equal numbers; lines: fewer of our atoms", xlabel="drift", ylabel="concept fidelity", xlim=(0, 0.55), ylim=(0, 0.42))


def draw_sizes(axes: Any, results: Results) -> None:
    for way, (_, how) in shrinking.WAYS.items():
        mine = [r for r in results if r["run"]["way"] == way]
        groups = [[r for r in mine if r["run"]["share"] == share] for share in shrinking.SHARES]
        line = [place(group) for group in groups if group]
        if line:
            axes.plot(*zip(*line, strict=True), SIZES_DRAWN[how], color=colour_of(way), ms=4, lw=1, label=way)
    axes.set(title=f"Smaller files: {max(shrinking.SHARES):.0%} to {min(shrinking.SHARES):.0%} of the numbers", xlabel="drift", xlim=(0, None))
    axes.legend(fontsize=7, frameon=False)


def edits(results: Results) -> Any:
    """What an edit follows and what it keeps, as atoms or strength go."""
    drawing = figure(7, 4.4)
    axes = drawing.subplots()
    lines: dict[str, list[tuple[float, float]]] = {}
    for (name, _), rows in edit_rows(results).items():
        at = fmean(v for row in rows for v in row["followed"]), fmean(v for row in rows for v in row["kept"])
        lines.setdefault(name, []).append(at)
    for name, points in lines.items():
        alpha, cut = 1 if "300" in name else 0.5, name.partition(CUT)[2]
        style = next((SIZES_DRAWN[how] for how, title in CUT_NAMES.items() if title == cut), "o-")
        if not cut:
            # The whole adapter, where each line starts.
            axes.plot(*points[0], "o", color=colour_of(name), ms=10, alpha=alpha)
        axes.plot(*zip(*points, strict=True), style, color=colour_of(name), alpha=alpha, label=name)
    axes.set_title("From the whole adapter (large) to fewer atoms, less strength or fewer numbers", fontsize=10)
    axes.set(xlabel="prompt followed", ylabel="subject kept")
    axes.legend(frameon=False, fontsize=7)
    return drawing


def dials(results: Results) -> Any:
    """Fidelity as a share of the whole adapter's, stop by stop: all runs, and their mean."""
    groups = sorted(dial_rows(results).items(), key=lambda item: (not item[0][0].startswith(OURS_LABEL), item[0]))
    drawing = figure(2.9 * len(groups), 2.9)
    for axes, ((name, dial), group) in zip(drawing.subplots(1, len(groups), sharey=True, squeeze=False)[0], groups, strict=True):
        curves = [[row["concept_fidelity"] / max(one["rows"][-1]["concept_fidelity"], 1e-9) for row in one["rows"]] for one in group]
        stops = [row["dial"] for row in group[0]["rows"]]
        for curve in curves:
            axes.plot(stops, curve, color=FAINT, lw=0.7)
        axes.plot(stops, [fmean(values) for values in zip(*curves, strict=True)], color=colour_of(name), lw=2)
        axes.set_title(f"{name}\n{slider.DIALS[dial]}", fontsize=8)
        axes.set(xlabel="dial", ylim=(0, None))
    drawing.axes[0].set_ylabel("of the whole fidelity")
    return drawing


# By the file's name: what it shows, which tables it is drawn from, and how.
FIGURES: dict[str, tuple[str, tuple[str, ...], Callable[..., Any]]] = {
    "front": ("Concept fidelity against drift: all methods, our pruned adapters, and smaller files.", ("E1", "E2-shrink"), front),
    "edits": ("Subject kept against prompt followed, for ours and LoRA.", ("E3",), edits),
    "dials": ("The fidelity as each dial is turned up.", ("E5",), dials),
}
