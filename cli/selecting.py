"""The options that say which atoms, the same in every command that has them, and what they mean for the core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from .common import Number, Share, UserError, options

if TYPE_CHECKING:
    from ..sparsedict_core.adapter import SparseAdapter
    from ..sparsedict_core.attachment import Attachment
    from ..sparsedict_core.selection import Selection


def amount_options(function: Callable) -> Callable:
    """One of four ways to say which atoms stay, and what narrows or turns it."""
    return options(
        click.option("--keep", type=Share(), default=None, metavar="SHARE", help="Share of the atoms: 0.1 or 10%."),
        click.option("--top", type=int, default=None, metavar="N", help="Number of atoms."),
        click.option("--threshold", type=Number(), default=None, metavar="X", help="Atoms of at least this importance."),
        click.option("--atoms", default=None, metavar="ADDRESSES", help='By address: "L3[0-15],L2[7]", "L4-L6", "L0.text[5]", "cat:L3".'),
        click.option("--layers", default=None, metavar="ADDRESSES", help="Consider these layers only; all other atoms go: L4-L9."),
        click.option("--per-site", is_flag=True, help="Take the share or number in every site, not over all together."),
        click.option("--invert", is_flag=True, help="Keep exactly what would have gone."),
    )(function)  # fmt: skip


def order_option(default: str | None, help: str) -> Callable:
    return click.option("--order", metavar="[importance|greedy]", default=default, show_default=default is not None, help=help)


def selection_of(order: str | None, **given: Any) -> Selection | None:
    """The selection that the options describe, or None where none of them was used."""
    from ..sparsedict_core.selection import Selection

    amounts = [f"--{name}" for name in ("keep", "top", "threshold", "atoms") if given[name] is not None]
    if len(amounts) > 1:
        raise UserError(f"{' and '.join(amounts)} each say which atoms to keep; give one of them")
    if not amounts:
        if not (given["layers"] or given["invert"] or given["per_site"]):
            return None
        # `--layers L4-L9` alone means all atoms there.
        given = {**given, "keep": 1.0}
    return Selection(order=order or "importance", **given)


def apply_gains(attachment: Attachment, adapter: SparseAdapter, selection: Selection | None, gains: Sequence[tuple[str, float]]) -> str | None:
    """Mask what the selection leaves out, then set single gains. Returns what the selection kept, in words."""
    import torch

    from ..sparsedict_core.addresses import resolve
    from ..sparsedict_core.selection import select

    if selection is None and not gains:
        return None
    result = None if selection is None else select(adapter, selection)
    values = {key: torch.ones(site.atoms) for key, site in adapter.sites.items()} if result is None else result.gains()
    for addresses, gain in gains:
        for key, mask in resolve(adapter, addresses).items():
            values[key][mask] = gain
    attachment.set_gains(values)
    return None if result is None else result.text
