"""`sparsedict plan`: which settings of a training fit into a card's memory. Computed from shapes: no weights, no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import UserError, print_json, say, table

if TYPE_CHECKING:
    from ..trainer.policy import Footprint

CARDS = (8, 12, 16, 24)


@click.command("plan")
@click.option("--model", default=None, metavar="NAME|DIR", help="A published model by name, or a diffusers folder, which needs no weights.  [default: a table of all names]")
@click.option("--vram", type=click.FloatRange(0, min_open=True), default=None, metavar="GB", help="The card's memory.  [default: 8, 12, 16 and 24]")
@click.option("--resolution", type=click.IntRange(64), default=None, help="Side of a square picture.  [default: the model's own]")
@click.option("--batch-size", type=click.IntRange(1), default=None, help="Rows of a whole step.  [default: by the model's size, as `train` takes it]")
@click.option("--json", "as_json", is_flag=True, help="The numbers, for programs.")
@click.option("--update", is_flag=True, help="Measure the published models' shapes anew, into the package's own table.")
def command(model: str | None, vram: float | None, resolution: int | None, batch_size: int | None, as_json: bool, update: bool) -> None:
    """Say which settings of a training fit into a card's memory, and what they need.

    One training step runs on tensors that have shapes and no content, so nothing is loaded and no GPU is needed. `train` chooses by
    the same numbers. Without --model, the table of all published models that are known by name.

    \b
    Examples:
      sparsedict plan
      sparsedict plan --model sdxl --vram 12
      sparsedict plan --model flux --vram 24 --resolution 768
      sparsedict plan --model models/my-model
    """
    from ..trainer.policy import batch_for

    if update:
        update_table()
        return
    cards = (vram,) if vram else CARDS
    if model is None:
        models = dict(published(resolution))
        if as_json:
            print_json({name: vars(footprint) for name, footprint in models.items()})
            return
        rows = [[name, f"{footprint.side}", f"{footprint.parameters / 1e9:.1f}", *(cell(footprint, card, batch_size) for card in cards)] for name, footprint in models.items()]
        say(*table(rows, ["model", "pixels", "10⁹ parameters", *(f"{card:g} GB" for card in cards)]), *LEGEND.split("\n"))
        return
    footprint = footprint_of_model(model, resolution)
    batch = batch_size or batch_for(footprint.parameters)
    if as_json:
        print_json(vars(footprint))
        return
    say(*describe(footprint, model))
    say(*table(settings_table(footprint, batch, cards), ["weights", "blocks", "rows at once", "GB", *(f"{card:g} GB" for card in cards)]))


LEGEND = """
A cell is the fastest way that fits: weights (bf16 before 8 bits before 4), rows at once, R = recomputed blocks, C = only with
the blocks kept in the CPU's memory. `train` loads bf16, and leaves the blocks outside where the weights alone do not fit;
smaller weights are `--dtype int8`, `fp8` or `nf4`, or what a host has loaded. `sparsedict plan --model NAME` shows all of them."""


def published(side: int | None) -> list[tuple[str, Footprint]]:
    """Every model of the package's table."""
    from ..trainer.policy import known
    from ..trainer.policy import table as footprints

    return [(name, known(own.family, own.parameters, side or own.side)) for name, (_, own) in footprints().items()]


def footprint_of_model(model: str, side: int | None) -> Footprint:
    from ..trainer.backends.full_sizes import FULL_SIZES
    from ..trainer.policy import known
    from ..trainer.policy import table as footprints

    if model in footprints():
        own = footprints()[model][-1]
        return known(own.family, own.parameters, side or own.side)
    if not Path(model).is_dir():
        raise UserError(f"{model!r} is neither a diffusers folder nor one of {', '.join(FULL_SIZES)}")
    from ..trainer.footprint import footprint_of

    return footprint_of(model, side)


def describe(model: Footprint, name: str) -> list[str]:
    """What the table below is about."""
    return [
        f"{name}: {model.family}, {model.parameters / 1e9:.2f} · 10⁹ parameters, at {model.side} × {model.side} pixels.",
        f"Text encoders: {model.text / 1e9:.1f} · 10⁹ parameters, {2 * model.text / 1e9:.1f} GB in bf16, before the training; then they leave the card.",
        f"VAE: {model.codec / 1e9:.1f} GB for one picture. The adapter with its optimiser: {model.adapter / 1e9:.2f} GB.",
        "",
    ]


def settings_table(model: Footprint, batch: int, cards: tuple[float, ...]) -> list[list[str]]:
    from ..trainer.policy import peak, usable

    rows = []
    for weights in ("bf16", "int8", "fp8", "nf4"):
        for recomputed, on_cpu in ((False, False), (True, False), (True, True)):
            if on_cpu and weights in ("int8", "nf4"):
                continue  # their packed weights stay where they were made
            for at_once in sorted({batch, 1}, reverse=True):
                needed = peak(model, weights, at_once, recomputed, on_cpu)
                blocks = "on the CPU" if on_cpu else "recomputed" if recomputed else "kept"
                fits = ["yes" if needed <= usable(card) else "–" for card in cards]
                rows.append([weights, blocks, f"{at_once} of {batch}", f"{needed / 1e9:.1f}", *fits])
    return rows


def cell(model: Footprint, card: float, batch: int | None) -> str:
    """The fastest way that fits, in short."""
    from ..trainer.policy import batch_for, choose, peak, usable

    for weights in ("bf16", "fp8", "nf4"):
        found = choose(model, usable(card), batch or batch_for(model.parameters), weights)
        if found is not None:
            return f"{weights} ×{found.rows}{' R' if found.recomputed else ''}"
    return "C" if peak(model, "bf16", 1, True, blocks_on_cpu=True) <= usable(card) else "–"


def update_table() -> None:
    """Measures all published models at half and at their own size: some minutes."""
    import json
    from dataclasses import asdict

    from ..sparsedict_core.atomic_write import write_atomically
    from ..trainer.backends.full_sizes import FULL_SIZES
    from ..trainer.footprint import footprint_of
    from ..trainer.policy import TABLE

    entries = {}
    for name in FULL_SIZES:
        own = footprint_of(name)
        entries[name] = [asdict(footprint_of(name, own.side // 2)), asdict(own)]
        say(f"{name}: {own.row / 1e9:.1f} GB a row, {own.row_recomputed / 1e9:.1f} GB recomputed", err=True)
    write_atomically(TABLE, (json.dumps(entries, indent=1) + "\n").encode())
