"""`sparsedict shrink`: the smallest file that keeps the concept; unlike `prune`, it may train a little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .common import ADAPTER, Share, UserError, bytes_text, check_out, load_adapter, model_options, open_model, out_option, say
from .convert import export, format_option
from .healing import healing_batch, healing_options


@click.command("shrink")
@click.argument("adapter", type=ADAPTER)
@click.option("--to", "share", type=Share(), required=True, metavar="SHARE", help="Size of the new file as a share of the old, moments counted in neither: 10% or 0.1.")
@click.option("--images", type=click.Path(path_type=Path, readable=False), default=None, help="The training images: healing steps then use them.")
@click.option("--heal-steps", type=click.IntRange(0), default=None, help="Training steps after the atoms are gone.  [default: 150]")
@healing_options
@model_options
@format_option
@out_option(help="The smaller adapter, .safetensors.")
def command(
    adapter: Path, share: float, images: Path | None, heal_steps: int | None, model: str, device: str | None, dtype: str | None,
    file_format: str, out: Path, overwrite: bool, **healing: Any,
) -> None:  # fmt: skip
    """Make the smallest file that keeps the concept (needs the base model).

    Atoms are taken by the greedy order and refitted, then healed by a few training steps. Says what was kept.

    \b
    Examples:
      sparsedict shrink zorp.safetensors --to 10% --out small.safetensors
      sparsedict shrink zorp.safetensors --to 5% --images photos/ --heal-steps 100 --out tiny.safetensors
      sparsedict shrink zorp.safetensors --to 10% --model path/to/sdxl-folder --gradient-accumulation-steps 16 --gradient-checkpointing --out small.safetensors
    """
    from ..sparsedict_core.file_format import save
    from .prune import weight_dtype

    check_out(out, overwrite, ".safetensors")
    if not 0 < share <= 1:
        raise UserError(f"--to {share:g}: give a share above 0 and at most 1, such as 10%")
    before = load_adapter(adapter)
    from ..trainer.shrink import shrink, size_of

    old, batch = size_of(before), healing_batch(**healing)
    result = shrink(before, open_model(model, device, dtype), share, images=images, heal_steps=heal_steps, batch=batch)
    if file_format == "lora":
        say(result.text, *export(result.adapter, out, overwrite, (model, device, dtype), images=images))
        return
    # Moments would be most of a small file, and it is as small as it is to get.
    report = save(result.adapter, out, dtype=weight_dtype(before), overwrite=overwrite, moments=False)
    say(result.text, f"{out}: {bytes_text(report.bytes)}, {report.bytes / old:.1%} of the {bytes_text(old)} that the old one has without its moments")
