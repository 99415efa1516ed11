"""`sparsedict prune`: fewer atoms, a smaller file, the same addresses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import ADAPTER, UserError, bytes_text, check_out, load_adapter, out_option, say, table
from .convert import export, format_option
from .selecting import amount_options, order_option, selection_of

if TYPE_CHECKING:
    from ..sparsedict_core.adapter import SparseAdapter


@click.command("prune")
@click.argument("adapter", type=ADAPTER)
@amount_options
@order_option(None, "Which atoms come first: `importance`, the editing slider's order, or `greedy`, the compressor's.  [default: greedy for --keep and --top where the file holds moments]")
@click.option("--refit/--no-refit", default=None, help="Change the kept atoms so that they come nearest to the full adapter's output.  [default: with the order `greedy`]")
@click.option("--moments/--no-moments", default=True, show_default=True, help="Keep what a later greedy order and refit need; says its size.")
@format_option
@out_option(help="The smaller adapter, .safetensors.")
def command(
    adapter: Path, order: str | None, refit: bool | None, moments: bool, file_format: str, out: Path, overwrite: bool, **amounts: Any
) -> None:
    """Keep some of the atoms; the rest leave the file.

    Every atom keeps its address. Each site is stored in the smaller of its two forms. Without images and without the base model.

    \b
    Examples:
      sparsedict prune zorp.safetensors --keep 10% --out small.safetensors
      sparsedict prune zorp.safetensors --keep 0.25 --order importance --no-refit --out edit.safetensors
      sparsedict prune zorp.safetensors --atoms "L3[0-15],L2[7]" --out few.safetensors
      sparsedict prune zorp.safetensors --atoms "L3[17]" --invert --out without.safetensors
      sparsedict prune zorp.safetensors --top 8 --per-site --layers L1-L2 --out middle.safetensors
    """
    from ..sparsedict_core.file_format import save
    from ..sparsedict_core.greedy import has_moments
    from ..sparsedict_core.prune import prune
    from ..sparsedict_core.selection import select

    check_out(out, overwrite, ".safetensors")
    # Built with the plain order first: what is wrong with the options is said before the file is read.
    if selection_of(order, **amounts) is None:
        raise UserError("say which atoms to keep: --keep 10%, --top 64, --threshold 0.01, --atoms \"L3[0-15]\" or --layers L4-L9")
    before = load_adapter(adapter)
    old = adapter.stat().st_size  # now, as --out may be the same file
    counted = (amounts["keep"] is not None or amounts["top"] is not None) and not amounts["invert"]
    if order is None:
        order = "greedy" if counted and has_moments(before) else "importance"
    if refit is None:
        refit = order == "greedy" and counted
    result = select(before, selection_of(order, **amounts), refit=refit)
    if not result.kept:
        say("Warning: no atom is kept; with this file the base draws what it draws without it.", err=True)
    after = prune(before, result, refit=refit)
    how = f"order {order}{', refitted' if refit else ''}: {result.text}"
    if file_format == "lora":
        say(how, *export(after, out, overwrite))
        return
    report = save(after, out, dtype=weight_dtype(before), overwrite=overwrite, moments=moments)

    rows = [[label, f"{site.atoms}", f"{before.sites[key].atoms}", report.forms[key]] for (key, site), label in zip(after.sites.items(), labels_of(before))]
    extra = f", {bytes_text(report.moments_bytes)} of it moments (--no-moments leaves them out)" if report.moments_bytes else ""
    say(*table(rows, ["site", "kept", "of", "form"]), "", how, f"{out}: {bytes_text(report.bytes)}, {report.bytes / old:.0%} of {bytes_text(old)}{extra}")


def labels_of(adapter: SparseAdapter) -> list[str]:
    from ..sparsedict_core.addresses import site_labels

    return list(site_labels(adapter).values())


def weight_dtype(adapter: SparseAdapter) -> Any:
    """The dtype that the file's weights have: a smaller file should not be a coarser one."""
    return next(iter(adapter.sites.values())).encoder_weight.dtype
