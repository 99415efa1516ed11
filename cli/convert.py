"""`sparsedict convert`: a LoRA becomes a dictionary, a dictionary a LoRA."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import UserError, bytes_text, check_out, load_adapter, model_options, open_model, options, out_option, say

if TYPE_CHECKING:
    from ..sparsedict_core.adapter import SparseAdapter
    from ..trainer.backends.base import Backend

STYLES = ("kohya", "diffusers", "peft")
ROTATIONS = ("svd", "varimax", "ica")


@click.command("convert")
@click.argument("file", type=click.Path(path_type=Path, readable=False))
@click.option("--rank", type=click.IntRange(1), default=None, help="Most directions a module: of a LoHa, LoKr, DoRA that comes in [default: 64], of the LoRA that goes out [default: as many as atoms].")
@click.option("--prompt", "prompts", multiple=True, metavar="TEXT", help="Order a LoRA's atoms by what they do for this prompt; may be given several times. Needs the base's weights.  [default: by singular value, without them]")
@click.option("--rotation", type=click.Choice(ROTATIONS), default=None, help="Mix the atoms of each site so that they are easier to read: the directions that the prompts move most, few atoms at each token, independent atoms. Needs --prompt.")
@click.option("--gate", is_flag=True, help="Give a LoRA's atoms thresholds, so that it acts where its concept is; trains a little, with the base at hand.")
@click.option("--allow-part", is_flag=True, help="Convert a LoRA though some of its modules have no place in the base; they are kept aside.")
@click.option("--style", type=click.Choice(STYLES), default="kohya", show_default=True, help="How the LoRA that goes out is spelled.")
@click.option("--images", type=click.Path(path_type=Path, readable=False), default=None, help="The training pictures, for --gate and for the nearest LoRA of atoms with thresholds.  [default: what is drawn for the trigger words]")
@click.option("--weights", type=click.Choice(["fp32", "fp16", "bf16"]), default=None, help="What the numbers are stored as.  [default: fp32 for a dictionary, fp16 for a LoRA]")
@model_options
@out_option(help="The dictionary or the LoRA, .safetensors; for `--style peft` a folder.")
def command(
    file: Path, rank: int | None, prompts: tuple[str, ...], rotation: str | None, gate: bool, allow_part: bool, style: str, images: Path | None, weights: str | None, model: str, device: str | None,
    dtype: str | None, out: Path, overwrite: bool,
) -> None:  # fmt: skip
    """Turn a LoRA into a dictionary, or a dictionary into a LoRA.

    Which way is told by the file. A LoRA needs to know its base (--model): names and widths are enough, no weights are read. With all its
    atoms the dictionary does what the LoRA does. A dictionary without thresholds leaves as exactly the LoRA that it is; one with
    thresholds as the nearest LoRA, fitted with the base at hand, and says how near that is.

    \b
    Examples:
      sparsedict convert lora.safetensors --model path/to/sdxl-folder --out dict.safetensors
      sparsedict convert lora.safetensors --model path/to/sdxl-folder --prompt "a zorp" --out dict.safetensors
      sparsedict convert dict.safetensors --out lora.safetensors
      sparsedict convert zorp.safetensors --model path/to/sdxl-folder --rank 16 --style diffusers --out lora.safetensors
    """
    import torch

    from ..sparsedict_core.file_format import DTYPES

    if out.exists() and file.exists() and out.samefile(file):
        raise UserError(f"{out} is the file that is converted, and would be lost; give another name after --out")
    check_out(out, overwrite, () if style == "peft" else ".safetensors", folder=style == "peft")
    if is_dictionary(file):
        if prompts or rotation or gate or allow_part:
            raise UserError(f"{file} is a dictionary; --prompt, --rotation, --gate and --allow-part are for LoRAs that come in")
        say(*export(load_adapter(file), out, overwrite, (model, device, dtype), style, rank, DTYPES[weights or "fp16"], images))
        return
    if rotation and not prompts:
        raise UserError("--rotation needs a prompt to see the atoms at work: --prompt TEXT")
    from ..lora.base import open_base
    from ..lora.convert import convert_file, lora_to_adapter
    from ..lora.importing import RANK
    from ..sparsedict_core.file_format import save

    kept = DTYPES[weights or "fp32"]
    if prompts or gate:
        adapter, report = lora_to_adapter(file, open_base(model), rank or RANK, torch.float32, allow_part)
        say(*report.text.split("\n"))
        adapter = at_work(adapter, prompts, rotation, gate, images, open_model(model, device, dtype))
        saved = save(adapter, out, dtype=kept, overwrite=overwrite)
    else:
        saved, report = convert_file(file, open_base(model), out, rank or RANK, kept, allow_part, overwrite)
        say(*report.text.split("\n"))
    say(f"{out}: {bytes_text(saved.bytes)}")


def at_work(adapter: SparseAdapter, prompts: tuple[str, ...], rotation: str | None, gate: bool, images: Path | None, backend: Backend) -> SparseAdapter:
    """The dictionary with what only a base at work can give it: an order of atoms, other atoms, thresholds."""
    from ..lora.at_work import order_by_prompts, sampled_coefficients
    from ..lora.rotations import rotated

    if rotation:
        adapter = rotated(adapter, sampled_coefficients(adapter, backend, prompts), rotation)
    if prompts:
        order_by_prompts(adapter, backend, prompts)
    if gate:
        from ..trainer.gate import gate as gated

        result = gated(adapter, backend, images)
        say(result.text)
        adapter = result.adapter
    return adapter


def format_option(function: Callable) -> Callable:
    """`--format lora`, for the commands that write a dictionary."""
    return options(
        click.option("--format", "file_format", type=click.Choice(["dict", "lora"]), default="dict", show_default=True, help="`lora`: write a LoRA that other tools load; `convert` has more to choose."),
    )(function)  # fmt: skip


def is_dictionary(file: Path) -> bool:
    """By the header alone; whatever is wrong with the file is said by whoever reads it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), "pt") as opened:
            return (opened.metadata() or {}).get("format") == "sparse_dict"
    except (OSError, SafetensorError):
        return False


def export(
    adapter: SparseAdapter, out: Path, overwrite: bool, model: tuple[str, str | None, str | None] | None = None, style: str = "kohya", rank: int | None = None,
    dtype: Any = None, images: Path | None = None,
) -> list[str]:  # fmt: skip
    """Write a dictionary as a LoRA; returns the lines to say. `model` (as `open_model` takes it) is for the fit of atoms with thresholds."""
    import torch

    from ..lora.exporting import export_lora

    def samples() -> Any:
        assert model is not None
        from ..lora.at_work import inputs_of
        from ..sparsedict_core.base_check import check_base
        from ..trainer.progress import ConsoleProgress

        backend = open_model(*model)
        check_base(adapter, backend.family, backend.fingerprint(), backend.denoiser)
        return inputs_of(adapter, backend, ConsoleProgress(), images)

    @functools.cache
    def heights() -> dict[str, int]:
        assert model is not None
        from ..lora.base import open_base

        base = open_base(model[0])
        return {path: wide[1] for path, wide in base.places().widths.items()} if base.family == adapter.metadata.get("base_family") else {}

    return export_lora(adapter, out, style, rank, dtype or torch.float16, overwrite, None if model is None else samples, None, None if model is None else heights).text.split("\n")
