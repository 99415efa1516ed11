"""Charts of an adapter's atoms and of a training run. Matplotlib's object interface only: no global state, no display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .images import DARK, ON_DARK

if TYPE_CHECKING:
    from PIL import Image

MISSING = "#e4e4e4"  # an atom that the file no longer has
ACCENT, SECOND, FAINT = "#31688e", "#c8742b", "#b8b8b8"
#: `for_node`: as wide as a node of a graph, so that letters are read without enlarging it, and on dark, as most graphs are.
NODE_WIDTH = 5.0
MISSING_ON_DARK = "#2b2b2b"
DOTS_PER_INCH = 110
FEWEST_COLUMNS, MOST_COLUMNS, MOST_CELLS = 64, 800, 1 << 18  # of the map: no more columns than it has pixels
MOST_LINES = 400  # between the map's rows; beyond, rows are as thin as they
MOST_POINTS = 4096  # of a curve
THUMBNAIL = (256, 384)  # as the web UIs' cards are


def figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained", facecolor="white")


def rendered(drawing: Any, for_node: bool = False) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    if for_node:
        darken(drawing)
    canvas = FigureCanvasAgg(drawing)
    canvas.draw()
    return Image.frombytes("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba())).convert("RGB")


def darken(drawing: Any) -> None:
    """Light letters and lines on a dark ground, whatever was drawn; by hand, as matplotlib's styles are global."""
    from matplotlib.text import Text

    drawing.set_facecolor(DARK)
    for axes in drawing.axes:
        if axes.get_facecolor()[:3] == (1, 1, 1):
            axes.set_facecolor(DARK)
        axes.tick_params(which="both", colors=ON_DARK)
        for spine in axes.spines.values():
            spine.set_edgecolor(ON_DARK)
    for text in drawing.findobj(Text):
        text.set_color(ON_DARK)


def row_labels(adapter: Any) -> list[str]:
    """`L3`, `L3.image`, `cat:L3`: the start of an address of each site, in the adapter's order."""
    from ..sparsedict_core.addresses import site_labels

    return list(site_labels(adapter).values())


def _importances(adapter: Any) -> tuple[Any, int]:
    """Importances (sites, columns), NaN where the file has no atom, and how many ids share a column."""
    import numpy as np

    sites = list(adapter.sites.values())
    last = max((int(site.atom_ids.max()) for site in sites if len(site.atom_ids)), default=0)
    # Ids of a stranger's file may be any: where they are more than a picture has columns, one column shows the strongest of several.
    each = 1 + last // max(FEWEST_COLUMNS, min(MOST_COLUMNS, MOST_CELLS // max(1, len(sites))))
    values = np.full((len(sites), 1 + last // each), np.nan)
    for row, site in enumerate(sites):
        np.fmax.at(values[row], site.atom_ids.cpu().numpy() // each, site.importance.detach().float().cpu().numpy())
    return values, each


def _colours(values: Any) -> Any:
    import numpy as np
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import PowerNorm

    top = float(np.nanmax(values)) if np.isfinite(values).any() else 0.0
    # The square root keeps the many weak atoms apart, which a linear scale shows as one dark field.
    return ScalarMappable(PowerNorm(0.5, vmin=0, vmax=top or 1.0), "viridis")


def importance_thumbnail(adapter: Any) -> Image.Image:
    """The map without a word, 256 × 384, for cards: they cut what they show, and write on it."""
    from PIL import Image

    values, _ = _importances(adapter)
    ground = Image.new("RGBA", THUMBNAIL, MISSING)
    if values.size:
        cells = Image.fromarray(_colours(values).to_rgba(values.astype("float32"), bytes=True))
        ground.alpha_composite(cells.resize(THUMBNAIL, Image.Resampling.NEAREST))
    return ground.convert("RGB")


def importance_map(adapter: Any, selection: Any = None, title: str | None = None, for_node: bool = False) -> Image.Image:
    """Layers × atoms, coloured by importance. Atoms outside `selection` (a SelectionResult) fade; atoms the file has lost are grey."""
    import numpy as np
    from matplotlib.image import PcolorImage

    sites, (values, each) = list(adapter.sites.items()), _importances(adapter)
    faded = np.zeros_like(values, dtype=np.float32)
    if selection is not None:
        for row, (key, site) in enumerate(sites):
            places = site.atom_ids.cpu().numpy() // each
            faded[row, places] = 0.82
            faded[row, places[np.asarray(selection.masks[key].cpu(), dtype=bool)]] = 0
    kept = sum(len(site.atom_ids) for _, site in sites)

    drawing = figure(NODE_WIDTH if for_node else 10, min(16.0, max(2.4, 1.3 + 0.27 * len(sites))))
    axes = drawing.subplots()
    axes.set_facecolor(MISSING_ON_DARK if for_node else MISSING)
    colours = _colours(values)
    # Coloured and placed here, as imshow works on its pixels in floating point: a hundred megabytes for a tall map.
    cells = colours.to_rgba(values.astype(np.float32), bytes=True)
    if selection is not None:
        ground = 0x1E if for_node else 255
        cells[..., :3] = (cells[..., :3] + (ground - cells[..., :3].astype(np.float32)) * faded[..., None]).round()
    right, bottom = values.shape[1] - 0.5, values.shape[0] - 0.5
    image = PcolorImage(axes, np.arange(-0.5, right + 1), np.arange(-0.5, bottom + 1), cells)
    image.set_in_layout(False)  # it fills the axes, and does not know its own extent
    axes.add_image(image)
    axes.set(xlim=(-0.5, right), ylim=(bottom, -0.5))
    step = max(1, -(-len(sites) // 60))
    _label_rows(axes, range(0, len(sites), step), row_labels(adapter)[::step])
    if len(sites) <= MOST_LINES:
        axes.hlines(np.arange(0.5, len(sites) - 1), -0.5, right, color=DARK if for_node else "white", linewidth=1.5)
    axes.set_xlabel("atom" if each == 1 else f"atoms, {each} in a column")
    axes.set_title(title or _map_title(kept, selection), fontsize=10)
    drawing.colorbar(colours, ax=axes, label="importance: mean norm added", pad=0.01)
    return rendered(drawing, for_node)


def _label_rows(axes: Any, rows: Sequence[int], labels: Sequence[str]) -> None:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=8)
    axes.set_yticks(rows, labels, fontproperties=font)
    # The layout measures each label a dozen times; the widest takes as much room as all.
    widest = max(range(len(labels)), key=lambda i: text_to_path.get_text_width_height_descent(labels[i], font, False)[0])
    for i, text in enumerate(axes.get_yticklabels()):
        text.set_in_layout(i in (0, widest, len(labels) - 1))


def _map_title(atoms: int, selection: Any) -> str:
    if selection is None:
        return f"{atoms} atoms by layer and index"
    return f"{selection.kept} of {selection.total} atoms selected"


def cumulative_curve(
    adapter: Any, marks: Sequence[float] = (0.10, 0.25), extra: Mapping[str, Sequence[tuple[float, float]]] | None = None, for_node: bool = False
) -> Image.Image:
    """Share of the total importance that the strongest share of the atoms carries; `extra` adds curves of (share, value) by name."""
    import numpy as np

    every = np.concatenate([site.importance.detach().float().cpu().numpy() for site in adapter.sites.values()] or [np.zeros(1)])
    ordered = np.sort(every)[::-1]
    total = ordered.sum()
    carried = np.concatenate([[0.0], np.cumsum(ordered) / total if total > 0 else np.zeros_like(ordered)])
    shares = np.linspace(0, 1, len(carried))
    drawn = slice(None) if len(carried) <= MOST_POINTS else np.linspace(0, len(carried) - 1, MOST_POINTS).astype(int)

    drawing = figure(NODE_WIDTH if for_node else 6, 3.0 if for_node else 3.6)
    axes = drawing.subplots()
    axes.plot(shares[drawn] * 100, carried[drawn] * 100, color=ACCENT, linewidth=2, label="importance")
    for name, points in (extra or {}).items():
        axes.plot([100 * share for share, _ in points], [100 * value for _, value in points], marker="o", markersize=4, linewidth=1.5, label=name)
    for mark in marks:
        value = float(np.interp(mark, shares, carried))
        axes.plot([mark * 100, mark * 100], [0, value * 100], color=FAINT, linewidth=1, linestyle=":")
        axes.annotate(f"{mark:.0%} of the atoms: {value:.0%}", (mark * 100, value * 100), textcoords="offset points", xytext=(8, -12), fontsize=8)
    axes.set(xlabel="% of the atoms, strongest first", ylabel="% carried", xlim=(0, 100), ylim=(0, 103))
    _plain(axes)
    if extra:
        axes.legend(frameon=False, fontsize=8)
    return rendered(drawing, for_node)


def training_curves(log: Sequence[Mapping[str, Any]], for_node: bool = False) -> Image.Image:
    """Loss, and activation density with its target, by step. `log` holds one mapping a step, with the names of
    the trainer's StepReport: step, loss, and where known density, target_density and quiet_ratio.
    """
    steps = [row["step"] for row in log]
    drawing = figure(NODE_WIDTH, 4.6) if for_node else figure(9, 3.0)
    left, right = drawing.subplots(*((2, 1) if for_node else (1, 2)))
    loss = [row["loss"] for row in log]
    left.plot(steps, loss, color=FAINT, linewidth=0.8)
    left.plot(steps, smoothed(loss), color=ACCENT, linewidth=2, label="loss")
    quiet = [(row["step"], row["quiet_ratio"]) for row in log if row.get("quiet_ratio") is not None]
    if quiet:
        left.plot([step for step, _ in quiet], smoothed([value for _, value in quiet]), color=SECOND, linewidth=1.5, label="quiet rows ÷ concept rows")
        left.legend(frameon=False, fontsize=8)
    left.set(xlabel="step", ylabel="loss")
    for key, colour, style, label in (("density", ACCENT, "-", "measured"), ("target_density", SECOND, "--", "target")):
        points = [(row["step"], row[key]) for row in log if row.get(key) is not None]
        if points:
            right.plot([step for step, _ in points], [100 * value for _, value in points], color=colour, linestyle=style, linewidth=1.8, label=label)
            right.legend(frameon=False, fontsize=8)
    right.set(xlabel="step", ylabel="activation density, %", ylim=(0, None))
    for axes in (left, right):
        _plain(axes)
    return rendered(drawing, for_node)


def smoothed(values: Sequence[float], weight: float = 0.9) -> list[float]:
    """Exponential mean without the bias of its start."""
    total, norm, result = 0.0, 0.0, []
    for value in values:
        total, norm = weight * total + value, weight * norm + 1
        result.append(total / norm)
    return result


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
