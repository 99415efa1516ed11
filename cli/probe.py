"""`sparsedict probe`: which atoms a prompt sets off, how strongly, and where in the picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import ADAPTER, Number, check_out, model_options, open_model, out_option, parse_size, print_json, sampling_options, say, table

if TYPE_CHECKING:
    from torch import Tensor

    from ..sparsedict_core.attachment import Attachment
    from ..trainer.backends.base import Backend


@click.command("probe")
@click.argument("adapter", type=ADAPTER)
@click.argument("prompt")
@click.option("--top", type=click.IntRange(1), default=11, show_default=True, metavar="N", help="The strongest N atoms are listed and mapped.")
@click.option("--levels", type=click.IntRange(1), default=8, show_default=True, help="Noise levels looked at, spread over the model's own.")
@click.option("--strength", type=Number(), default=1.0, show_default=True, help="The adapter's strength while the picture is made.")
@click.option("--json", "as_json", is_flag=True, help="The numbers, for programs.")
@model_options
@sampling_options
@out_option(help="The picture with the coefficient maps, .png.")
def command(
    adapter: Path, prompt: str, top: int, levels: int, strength: float, as_json: bool, model: str, device: str | None, dtype: str | None,
    seed: int, steps: int | None, guidance: float | None, size: str | None, out: Path, overwrite: bool,
) -> None:  # fmt: skip
    """Which atoms a prompt sets off, and where in the picture.

    A picture is made, noised again to several levels and shown to the model with the prompt; the coefficients at each place are
    what the maps show. An atom of a text stream acts on words, not on places, and has no map.

    \b
    Examples:
      sparsedict probe zorp.safetensors "a zorp on a sky background" --out where.png
      sparsedict probe zorp.safetensors "a flat fox" --top 5 --json --out where.png
    """
    from ..pictures import coefficient_map, save_image
    from .sampling import AdapterSpec, attached, seeded_noise

    check_out(out, overwrite, ".png")
    backend = open_model(model, device, dtype)
    noise = seeded_noise(backend, [seed], parse_size(size, backend))
    with attached(backend, [AdapterSpec("", adapter, strength)]) as [(_, _, attachment)]:
        image, atoms = look(backend, attachment, prompt, noise, seed, levels, steps, guidance, top)
    mapped = [atom for atom in atoms if atom["map"] is not None]
    save_image(coefficient_map(image, [atom["map"] for atom in mapped], [f"{atom['address']}\n{atom['norm']:.3g}" for atom in mapped], columns=6), out)

    if as_json:
        plain = [{**atom, "map": None if atom["map"] is None else [[round(v, 5) for v in row] for row in atom["map"].tolist()]} for atom in atoms]
        print_json({"adapter": str(adapter), "prompt": prompt, "seed": seed, "picture": str(out), "atoms": plain})
        return
    rows = [[atom["address"], f"{atom['norm']:.4g}", f"{atom['relative']:.2%}", f"{atom['fires']:.1%}", "yes" if atom["map"] is not None else "–"] for atom in atoms]
    say(*table(rows, ["atom", "norm added", "of the output", "fires at", "map"]), "", f"{out}: {len(mapped)} maps")


def look(
    backend: Backend, attachment: Attachment, prompt: str, noise: Tensor, seed: int, levels: int, steps: int | None, guidance: float | None,
    top: int,
) -> tuple[Any, list[dict[str, Any]]]:
    """The picture (PIL) and the `top` atoms that fire most strongly, each with its map (h, w) or None."""
    from ..pictures import to_image
    from ..sparsedict_core.addresses import format_address
    from ..trainer.probing import probed

    picture, fired = probed(backend, attachment, prompt, noise, seed, levels, steps, guidance, top)
    atoms = [
        {"address": format_address(attachment.adapter, atom.key, atom.row), "norm": atom.norm, "relative": atom.relative, "fires": atom.fires, "map": atom.map}
        for atom in fired[:top]
    ]
    return to_image(picture), atoms
