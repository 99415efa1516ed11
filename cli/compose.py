"""`sparsedict compose`: several adapters in one file, each under its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .common import bytes_text, check_out, load_adapter, model_options, open_model, out_option, say
from .convert import export, format_option
from .healing import healing_batch, healing_options


@click.command("compose")
@click.argument("adapters", nargs=-1, required=True, metavar="[NAME=]FILE[:STRENGTH]...")
@click.option("--moments/--no-moments", default=True, show_default=True, help="Keep what a later greedy order and refit need.")
@click.option("--heal", is_flag=True, help="For concepts: train a little with the base at hand, so that each keeps to its own word.")
@click.option("--heal-steps", type=click.IntRange(1), default=None, help="Steps of that.  [default: 100]")
@healing_options
@model_options
@format_option
@out_option(help="The merged adapter, .safetensors.")
def command(
    adapters: tuple[str, ...], moments: bool, heal: bool, heal_steps: int | None, model: str, device: str | None, dtype: str | None,
    file_format: str, out: Path, overwrite: bool, **healing: Any,
) -> None:  # fmt: skip
    """Merge adapters (concept + style) into one file.

    Their atoms are put side by side, none is changed: the file does what applying one after the other does. A name (else the
    file's) becomes part of the addresses, as in cat:L3[17]. Adapters for different base models are refused.

    Side by side, each also answers a little to the other's word. --heal teaches two concepts who is asked for, from pictures that each
    draws itself; it needs the base model and changes the members' numbers, no address. A style is better composed without it: it is meant
    to act on whatever is asked for, and healing takes most of that away (benchmarks/RESULTS.md, E4).

    \b
    Examples:
      sparsedict compose zorp.safetensors ink.safetensors --out both.safetensors
      sparsedict compose cat=zorp.safetensors:1.0 style=ink.safetensors:0.7 --out both.safetensors
      sparsedict compose zorp.safetensors quax.safetensors --heal --model path/to/sdxl-folder --out both.safetensors
    """
    import torch

    from ..sparsedict_core.compose import compose
    from ..sparsedict_core.file_format import save
    from .prune import weight_dtype
    from .sampling import parse_spec

    check_out(out, overwrite, ".safetensors")
    specs = [parse_spec(text) for text in adapters]
    parts = [(spec.name, load_adapter(spec.path), spec.strength) for spec in specs]
    dtypes = {weight_dtype(adapter) for _, adapter, _ in parts}
    if heal or heal_steps:
        from ..trainer.merge import HEAL_STEPS, Part, merge

        batch = healing_batch(**healing)
        merged = merge([Part(*part) for part in parts], open_model(model, device, dtype), heal_steps or HEAL_STEPS, batch=batch)
    else:
        merged = compose(parts)
    if file_format == "lora":
        say(*export(merged, out, overwrite, (model, device, dtype)))
        return
    report = save(merged, out, dtype=dtypes.pop() if len(dtypes) == 1 else torch.float32, overwrite=overwrite, moments=moments)
    for member in merged.members:
        sites = [site for site in merged.sites.values() if site.member == member.name]
        say(f"{member.name}: {sum(site.atoms for site in sites)} atoms at {len(sites)} sites, strength {member.strength:g}")
    say(f"{out}: {bytes_text(report.bytes)}")
