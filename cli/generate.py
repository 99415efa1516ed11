"""`sparsedict generate`: images from prompts, with any number of adapters, atoms masked or weighed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .common import UserError, check_out, model_options, open_model, out_option, parse_size, sampling_options, say
from .selecting import amount_options, order_option, selection_of


@click.command("generate")
@click.argument("prompts", nargs=-1, required=True, metavar="PROMPT...")
@click.option("--adapter", "-a", "adapters", multiple=True, metavar="FILE[:STRENGTH]", help="An adapter; repeat it for several, in order.")
@model_options
@sampling_options
@click.option("--count", type=click.IntRange(1), default=1, show_default=True, help="Pictures of each prompt, with seeds counted up.")
@click.option("--compare", is_flag=True, help="Put the base model's picture of the same noise before each.")
@amount_options
@order_option("importance", "Which atoms --keep and --top take first.")
@click.option("--gain", "gains", multiple=True, metavar="ADDRESSES=G", help="Weigh single atoms: L3[5]=0.5, L3[5]=0 takes one out.")
@out_option(help="A .png (several pictures become one labelled grid), or a folder (one file each).")
def command(
    prompts: tuple[str, ...], adapters: tuple[str, ...], model: str, device: str | None, dtype: str | None, seed: int, steps: int | None,
    guidance: float | None, size: str | None, count: int, compare: bool, order: str, gains: tuple[str, ...], out: Path, overwrite: bool,
    **amounts: Any,
) -> None:  # fmt: skip
    """Make images from prompts, with or without adapters.

    The options on atoms apply to each adapter given, for these pictures only; the files stay as they are.

    \b
    Examples:
      sparsedict generate "a large flat fox" --out base.png
      sparsedict generate "a zorp on a sky background" -a zorp.safetensors:0.8 --count 4 --compare --out zorp.png
      sparsedict generate "a zorp" -a zorp.safetensors --keep 10% --out edited.png
      sparsedict generate "a zorp" -a zorp.safetensors --gain "L3[17]=0,L2=1.5" --out pictures/
    """
    from ..pictures import image_strip
    from ..sparsedict_core.gains import parse_gains
    from .sampling import attached, parse_spec, sample, seeded_noise
    from .selecting import apply_gains

    folder = out.suffix == ""
    check_out(out, overwrite, () if folder else ".png", folder=folder)
    selection = selection_of(order, **amounts)
    weighed = [pair for text in gains for pair in parse_gains(text)]
    specs = [parse_spec(text) for text in adapters]
    if not specs and (selection or weighed):
        raise UserError("the options on atoms need an adapter: --adapter FILE")
    backend = open_model(model, device, dtype)
    seeds = [seed + number for number in range(count)]
    noise = seeded_noise(backend, seeds, parse_size(size, backend))

    images, labels = [], []
    with attached(backend, specs) as attachments:
        for spec, adapter, attachment in attachments:
            text = apply_gains(attachment, adapter, selection, weighed)
            if text:
                say(f"{spec.path}: {text}", err=True)
        for prompt in prompts:
            made = sample(backend, prompt, noise, steps, guidance)
            plain = []
            if compare:
                for _, _, attachment in attachments:
                    attachment.enabled = False
                plain = sample(backend, prompt, noise, steps, guidance)
                for _, _, attachment in attachments:
                    attachment.enabled = True
            for number, one_seed in enumerate(seeds):
                if compare:
                    images.append(plain[number])
                    labels.append("base" if one_seed == seed else f"base, seed {one_seed}")
                images.append(made[number])
                labels.append(prompt if one_seed == seed else f"seed {one_seed}")

    if folder:
        write_folder(out, images, overwrite)
    elif len(images) == 1:
        save_with_text(images[0], out, prompt=prompts[0], seed=seed, adapters=" ".join(adapters), model=model)
    else:
        across = count * 2 if compare else count if count > 1 else len(images)
        save_with_text(image_strip(images, labels, columns=min(across, 8)), out, prompt=" | ".join(prompts), seed=seed, model=model)
    say(f"{out}: {len(images)} picture{'s' if len(images) > 1 else ''}")


def write_folder(out: Path, images: list, overwrite: bool) -> None:
    from ..pictures import save_image

    out.mkdir(parents=True, exist_ok=overwrite)
    for number, image in enumerate(images):
        save_image(image, out / f"{number:03d}.png")


def save_with_text(image: Any, path: Path, **fields: Any) -> None:
    """What made the picture, inside the picture, where image viewers show it."""
    from PIL.PngImagePlugin import PngInfo

    from ..pictures import save_image

    text = PngInfo()
    for key, value in fields.items():
        text.add_text(f"sparsedict.{key}", str(value))
    save_image(image, path, pnginfo=text)
