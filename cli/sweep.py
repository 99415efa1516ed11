"""`sparsedict sweep`: the slider, drawn. One seed, from the base to the full concept as atoms are added."""

from __future__ import annotations

from pathlib import Path

import click

from .common import (
    ADAPTER,
    Number,
    UserError,
    check_out,
    model_options,
    open_model,
    out_option,
    parse_share,
    parse_size,
    sampling_options,
    say,
)
from .selecting import order_option

EXAMPLE_SHARES = "0,1%,2%,5%,10%,25%,50%,100%"


@click.command("sweep")
@click.argument("adapter", type=ADAPTER)
@click.argument("prompt")
@click.option("--parts", type=click.IntRange(1), default=8, show_default=True, help="Equal parts of the importance, from the base to all of it.")
@click.option("--shares", default=None, metavar="LIST", help=f"Instead: shares of the atoms, one picture each, such as {EXAMPLE_SHARES}.")
@click.option("--strength", type=Number(), default=1.0, show_default=True, help="The adapter's strength, the same in all pictures.")
@order_option("importance", "Which atoms come first; greedy needs --shares.")
@click.option("--per-site", is_flag=True, help="Take the share in every site, not over all together.")
@click.option("--layers", default=None, metavar="ADDRESSES", help="Use the atoms of these layers only: L4-L9.")
@click.option("--gif/--no-gif", "animate", default=True, show_default=True, help="Also write an animation beside the .png.")
@model_options
@sampling_options
@out_option(help="The row of images, .png; the animation has the same name with .gif.")
def command(
    adapter: Path, prompt: str, parts: int, shares: str | None, strength: float, order: str, per_site: bool, layers: str | None, animate: bool,
    model: str, device: str | None, dtype: str | None, seed: int, steps: int | None, guidance: float | None, size: str | None,
    out: Path, overwrite: bool,
) -> None:  # fmt: skip
    """One seed, a row of images from the base to the full concept as atoms are added.

    The sets of atoms are nested: a larger share has all atoms of a smaller one.

    \b
    Examples:
      sparsedict sweep zorp.safetensors "a zorp on a sky background" --out slider.png
      sparsedict sweep zorp.safetensors "a zorp" --shares 0,10%,100% --seed 3 --no-gif --out slider.png
    """
    from ..pictures import gif, image_strip, save_image
    from ..sparsedict_core.selection import Selection, select
    from .sampling import AdapterSpec, attached, sample, seeded_noise

    check_out(out, overwrite, ".png")
    animation = out.with_suffix(".gif")
    if animate:
        check_out(animation, overwrite, ".gif")
    if shares is None and (order != "importance" or per_site):
        raise UserError("parts of the importance have no other order and are over all sites; give --shares with --order and --per-site")
    # Each part adds as much importance as the one before: few strong atoms first, then more and more weak ones.
    amounts: list[dict[str, float | int]] = (
        [{"importance_share": part / parts} for part in range(parts + 1)]
        if shares is None
        else [{"keep": share} if share > 0 else {"top": 0} for share in parse_shares(shares)]
    )
    backend = open_model(model, device, dtype)
    noise = seeded_noise(backend, [seed], parse_size(size, backend))

    images, labels = [], []
    with attached(backend, [AdapterSpec("", adapter, strength)]) as [(_, loaded, attachment)]:
        for amount in amounts:
            result = select(loaded, Selection(**amount, order=order, per_site=per_site, layers=layers))
            attachment.set_gains(result.gains())
            images += sample(backend, prompt, noise, steps, guidance)
            share = f"{result.kept / result.total:.1%}" if result.total else "100%"
            labels.append(f"{share}\n{result.kept} atoms")
            say(f"{share}: {result.kept} of {result.total} atoms, {result.importance_kept:.0%} of the importance", err=True)

    save_image(image_strip(images, labels, side=160), out)
    say(f"{out}: {len(images)} pictures, seed {seed}")
    if animate:
        gif(images, animation, labels)
        say(f"{animation}: the same as an animation")


def parse_shares(text: str) -> list[float]:
    """`0,10%,100%` → [0, 0.1, 1]."""
    shares = [parse_share(part.strip()) for part in text.split(",") if part.strip()]
    if not shares or not all(0 <= share <= 1 for share in shares):
        raise UserError(f"--shares {text!r}: give shares from 0 to 100%, such as {EXAMPLE_SHARES}")
    return shares
