"""A sparse dictionary in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.addresses import atom_addresses, site_labels
from ..sparsedict_core.gains import alive
from ..sparsedict_core.selection import SelectionResult, describe, strongest_atoms
from ..sparsedict_core.shown_text import shown
from ..sparsedict_core.site import firing_text

MOST_STEPS, LONGEST = 20, 600  # lines on what was done to a file, and characters of one
STRONGEST = ("strongest", "importance", "fires at")  # what `strongest_rows` gives


Gains = Mapping[str, Tensor] | None


def kept(adapter: SparseAdapter, gains: Gains) -> SelectionResult | None:
    """What the gains leave, for pictures; None where that is everything."""
    masks = alive(adapter, gains)
    return None if all(bool(mask.all()) for mask in masks.values()) else describe(adapter, masks)


def table(rows: Sequence[Sequence[str]], head: Sequence[str]) -> str:
    """Columns of text, as wide as their widest cell; the first is left-aligned. Cells may come from a file, so they are escaped."""
    rows = [[shown(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def as_text(adapter: SparseAdapter, gains: Gains, name: str, strongest: int = 12) -> str:
    """What it is (`name` where its file has no title), what it was trained on, its sites and its strongest atoms."""
    metadata, masks = adapter.metadata, alive(adapter, gains)
    lines = [f"{shown(metadata.get('title', name))}: {adapter.atom_count} atoms at {len(adapter.sites)} sites"]
    result = kept(adapter, gains)
    if result is not None:
        lines.append(f"the selection {result.text}")
    lines += facts(adapter)
    training = metadata.get("training")
    if isinstance(training, dict):
        lines.append(f"training: {in_words(training)}")
    for step in adapter.lineage[-MOST_STEPS:]:
        if isinstance(step, dict):
            lines.append(f"then: {in_words(step)}")

    whole = sum(float(site.importance.sum()) for site in adapter.sites.values())
    rows, labels = [], site_labels(adapter)
    for key, site in adapter.sites.items():
        share = float(site.importance.sum()) / whole if whole > 0 else 0.0
        rows.append([labels[key], f"{int(masks[key].sum())}/{site.atoms}", f"{share:.1%}", f"{site.d_in}→{site.d_out}"])
    lines += ["", table(rows, ["site", "atoms", "importance", "widths"])]
    atoms = strongest_rows(adapter, strongest, masks)
    if atoms:
        lines += ["", table(atoms, STRONGEST)]
    return "\n".join(lines)


def facts(adapter: SparseAdapter) -> list[str]:
    """Base, encoder, trigger words and members, a line each."""
    moments = any(site.moments is not None for site in adapter.sites.values())
    lines = [
        f"base {shown(adapter.metadata.get('base_family', 'unknown'))}, encoder {adapter.config.encoder}, density {adapter.config.density:.0%}, "
        f"moments {'yes' if moments else 'no'}"
    ]
    if adapter.trigger_words:
        lines.append(f"trigger words: {shown(', '.join(adapter.trigger_words))}")
    return lines + [f"member {shown(member.name)}: strength {member.strength:g}" for member in adapter.members]


def strongest_rows(adapter: SparseAdapter, count: int, masks: Mapping[str, Tensor] | None = None) -> list[list[str]]:
    """Address, importance and firing of the `count` strongest atoms, those that `masks` leave; none where nothing is known of any."""
    atoms = strongest_atoms(adapter, count, masks)
    if not atoms or atoms[0][2] <= 0:
        return []
    addresses = atom_addresses(adapter, [(key, row) for key, row, _ in atoms])
    return [[address, f"{value:.4g}", firing_text(adapter.sites[key], row)] for address, (key, row, value) in zip(addresses, atoms)]


def in_words(values: dict[str, object]) -> str:
    """`steps 400, preset concept`: what is plain of a file's own words about itself."""
    return shown(", ".join(f"{key} {value}" for key, value in values.items() if isinstance(value, (str, int, float))), LONGEST)
