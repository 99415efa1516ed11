"""`sparsedict inspect`: what is in a file, as a table, as JSON, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import ADAPTER, bytes_text, check_out, print_json, say, table
from .selecting import amount_options, order_option, selection_of

if TYPE_CHECKING:
    from ..sparsedict_core.adapter import SparseAdapter
    from ..sparsedict_core.selection import SelectionResult
    from ..sparsedict_core.site import SparseSite


@click.command("inspect")
@click.argument("adapter", type=ADAPTER)
@click.option("--json", "as_json", is_flag=True, help="Everything, for programs: addresses, forms, bytes, importance, metadata.")
@click.option("--picture", type=click.Path(path_type=Path), default=None, help="Also draw layers × atoms by importance as this .png.")
@click.option("--curve", type=click.Path(path_type=Path), default=None, help="Also draw what the strongest atoms carry as this .png.")
@click.option("--strongest", type=click.IntRange(0), default=12, show_default=True, metavar="N", help="List the N strongest atoms.")
@amount_options
@order_option("importance", "Which atoms --keep and --top take first.")
@click.option("--overwrite", is_flag=True, help="Replace pictures that exist.")
def command(
    adapter: Path, as_json: bool, picture: Path | None, curve: Path | None, strongest: int, order: str, overwrite: bool, **amounts: Any
) -> None:
    """List an adapter's layers and atoms; draw them as a picture.

    With the options on atoms: what such a selection would keep, without writing an adapter.

    \b
    Examples:
      sparsedict inspect zorp.safetensors
      sparsedict inspect zorp.safetensors --picture atoms.png --curve curve.png
      sparsedict inspect zorp.safetensors --keep 10% --order greedy
      sparsedict inspect zorp.safetensors --json
    """
    from ..pictures import cumulative_curve, importance_map, save_image
    from ..sparsedict_core.file_format import load_with_metadata
    from ..sparsedict_core.selection import select

    for path in (picture, curve):
        if path is not None:
            check_out(path, overwrite, ".png")
    selection = selection_of(order, **amounts)
    loaded, metadata = load_with_metadata(adapter)
    result = None if selection is None else select(loaded, selection)
    report = describe(adapter, loaded, metadata, result)
    if picture is not None:
        save_image(importance_map(loaded, result), picture)
    if curve is not None:
        save_image(cumulative_curve(loaded), curve)
    if as_json:
        print_json(report)
        return
    say(*as_text(report, loaded, strongest))
    for path in (picture, curve):
        if path is not None:
            say(f"picture: {path}")


def describe(path: Path, adapter: SparseAdapter, metadata: dict[str, Any], result: SelectionResult | None) -> dict[str, Any]:
    """All that there is to say about the file, in plain values."""
    from ..sparsedict_core.addresses import format_masks, site_labels

    whole, labels = sum(float(site.importance.sum()) for site in adapter.sites.values()), site_labels(adapter)
    report = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "atoms": adapter.atom_count,
        "parameters": adapter.parameter_count(),
        "moments": any(site.moments is not None for site in adapter.sites.values()),
        "sites": [site_row(adapter, site, labels[key], whole) for key, site in adapter.sites.items()],
        "metadata": metadata,
    }
    if result is not None:
        report["selection"] = {
            "kept": result.kept, "of": result.total, "energy_kept": result.energy_kept, "importance_kept": result.importance_kept,
            "addresses": format_masks(adapter, result.masks), "text": result.text,
        }  # fmt: skip
    return report


def site_row(adapter: SparseAdapter, site: SparseSite, label: str, whole: float) -> dict[str, Any]:
    from ..sparsedict_core.addresses import ranges
    from ..sparsedict_core.tensor_table import site_tensors

    sizes = {row.name: tensor.nbytes for row, tensor in site_tensors(site)}
    importance, ids, firing = site.importance.detach().float(), site.atom_ids.tolist(), site.firing
    return {
        "address": label,
        "path": site.name.path,
        "layer": site.name.layer,
        "stream": site.name.stream,
        "member": site.member,
        "atoms": len(ids),
        "addresses": f"{label}[{ranges(sorted(ids))}]" if ids else "",
        "form": site.form,
        "dtype": str(site.encoder_weight.dtype).removeprefix("torch."),
        "bytes": sum(sizes.values()),
        "moments_bytes": sizes.get("moments", 0),
        "bytes_by_form": bytes_by_form(adapter, site),
        "importance_share": float(importance.sum()) / whole if whole > 0 else 0.0,
        "atom_ids": ids,
        "importance": [round(value, 8) for value in importance.tolist()],
        "firing": None if firing is None else [round(value, 6) for value in firing.float().tolist()],
    }


def bytes_by_form(adapter: SparseAdapter, site: SparseSite) -> dict[str, int]:
    """What the weights of this site take in each form: the file has the smaller one."""
    size, atoms, rank = site.encoder_weight.element_size(), site.atoms, adapter.config.rank
    forms = {"dense": size * atoms * (site.d_in + site.d_out)}
    if rank is not None:
        forms["factored"] = size * (rank * (site.d_in + site.d_out) + 2 * atoms * rank)
    return forms


def as_text(report: dict[str, Any], adapter: SparseAdapter, strongest: int) -> list[str]:
    from ..host_shared.describe import STRONGEST, facts, strongest_rows

    lines = [f"{report['file']}: {report['atoms']} atoms at {len(report['sites'])} sites, {bytes_text(report['bytes'])}", *facts(adapter)]
    rows = [
        [site["address"], str(site["atoms"]), f"{site['importance_share']:.1%}", site["form"], bytes_text(site["bytes"]), site["path"]]
        for site in report["sites"]
    ]
    lines += ["", *table(rows, ["site", "atoms", "importance", "form", "size", "module"])]
    if atoms := strongest_rows(adapter, strongest):
        lines += ["", *table(atoms, list(STRONGEST))]
    if "selection" in report:
        lines += ["", f"selection {report['selection']['text']}", report["selection"]["addresses"]]
    return lines
