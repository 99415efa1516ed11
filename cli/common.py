"""What several commands share: their common options, and opening and checking what those name."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import torch

    from ..sparsedict_core.adapter import SparseAdapter
    from ..trainer.backends.base import Backend

# No checks by click: what is wrong with the file is said by the core, and is no wrong usage.
ADAPTER = click.Path(path_type=Path, readable=False)


#: What a base computes in, and what its weights can be held in instead.
TYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
SMALL = ("int8", "fp8", "nf4")


class UserError(click.ClickException):
    """Something is wrong with what the user gave: one line, exit code 1. `about_base` as of the core's errors."""

    def __init__(self, message: str, about_base: bool = False) -> None:
        super().__init__(message)
        self.about_base = about_base


def options(*decorators: Callable) -> Callable:
    """Several options as one decorator, in the order in which help shows them."""

    def apply(function: Callable) -> Callable:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


def model_options(function: Callable) -> Callable:
    return options(
        click.option("--model", default="demo", show_default=True, metavar="NAME|PATH",
                     help="The base: a diffusers folder, a single .safetensors (SD1.5, SDXL), a .gguf in the folder of its model, or `demo`, the model inside this package."),
        click.option("--device", default=None, metavar="DEVICE", help="cpu, cuda, cuda:1, mps.  [default: a GPU where there is one]"),
        click.option("--dtype", type=click.Choice([*TYPES, *SMALL]), default=None,
                     help="What the weights are held in. int8 and fp8 (torchao) and nf4 (bitsandbytes, CUDA) are made as a folder is loaded.  "
                          "[default: bf16 on a GPU that computes it, else fp32]"),
    )(function)  # fmt: skip


def sampling_options(function: Callable) -> Callable:
    return options(
        click.option("--seed", type=int, default=0, show_default=True, help="The noise. The same seed gives the same noise for any adapter."),
        click.option("--steps", type=click.IntRange(1), default=None, help="Sampling steps.  [default: the model's own]"),
        click.option("--guidance", type=Number(), default=None, help="Classifier-free guidance.  [default: the model's own]"),
        click.option("--size", default=None, metavar="N|WxH", help="Pixels.  [default: the model's own]"),
    )(function)  # fmt: skip


def out_option(default: str | None = None, help: str = "Where to write.") -> Callable:
    return options(
        click.option("--out", "-o", type=click.Path(path_type=Path), default=default, required=default is None, show_default=default is not None, help=help),
        click.option("--overwrite", is_flag=True, help="Replace what is there. Without it, nothing is ever overwritten."),
    )  # fmt: skip


def check_out(path: Path, overwrite: bool, suffix: str | tuple[str, ...] = (), folder: bool = False) -> Path:
    """Refuse a path that cannot be written before any work is done, not after it.

    Makes the folder that is to hold it; a command that ends without a file in it takes it away again.
    """
    suffixes = (suffix,) if isinstance(suffix, str) else suffix
    if suffixes and path.suffix.lower() not in suffixes:
        raise UserError(f"{path} should end in {' or '.join(suffixes)}")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists; choose another --out or add --overwrite")
    if path.is_dir() and not folder:
        raise UserError(f"{path} is a folder; --out names a file")
    parent = path.parent
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    try:
        parent.mkdir(parents=True, exist_ok=True)
        if (command := click.get_current_context(silent=True)) is not None:
            command.call_on_close(partial(remove_empty, missing))
    except OSError as error:
        raise UserError(f"cannot make the folder {parent}: {error.strerror}") from error
    if not os.access(parent, os.W_OK):
        raise UserError(f"the folder {parent} is not writable; choose another --out")
    return path


def remove_empty(folders: Sequence[Path]) -> None:
    """Innermost first, those that hold nothing."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def load_adapter(path: Path) -> SparseAdapter:
    from ..sparsedict_core.file_format import load

    return load(path)


def open_model(model: str, device: str | None, dtype: str | None, spread: bool = False) -> Backend:
    import torch

    from ..trainer.backends import open_backend

    if model != "demo" and not (sys.stderr and sys.stderr.isatty()):
        for library in (import_module("diffusers.utils.logging"), import_module("transformers.utils.logging")):
            library.disable_progress_bar()
    name = device or ("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"unknown device {name!r}; use cpu, cuda, cuda:1 or mps") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UserError("this PyTorch sees no CUDA device; use --device cpu")
    if chosen.type == "cuda" and chosen.index is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # accelerate gives each process a GPU of its own and says which; plain "cuda" is the first one in all of them.
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    check_device(chosen)
    computed = dtype if dtype in TYPES else "bf16" if computes_bf16(chosen) else "fp32"
    return open_backend(model, chosen, getattr(torch, TYPES[computed]), dtype if dtype in SMALL else None, spread)


def computes_bf16(device: torch.device) -> bool:
    """Whether the device has it in hardware: emulated, it is far slower than fp32."""
    import torch

    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def check_device(device: torch.device) -> None:
    """Refuse one that is not in this machine, before a model is read for it."""
    import torch

    try:
        torch.empty(1, device=device).cpu()
    except Exception as error:  # each kind of device has an error of its own for not being there
        reason = shorten(str(error).split(". ")[0].strip().rstrip("."), 200, placeholder=" …")
        raise UserError(f"this PyTorch cannot use the device {str(device)!r} ({reason}); use --device cpu") from error


def parse_share(text: str) -> float:
    """`10%`, `0.1` → 0.1."""
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise UserError(f"{text!r} is no share; write 0.1 or 10%") from None


class Number(click.ParamType):
    """A finite number; nan and inf come out of a calculation that went wrong, and are no setting."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return finite(float(value))
        except ValueError:
            raise UserError(f"{param.opts[0] if param else ''} {value}: give a number, such as 0.8") from None


def finite(number: float) -> float:
    """Raises ValueError for nan and infinity."""
    if not math.isfinite(number):
        raise ValueError(f"{number} is not finite")
    return number


class Share(click.ParamType):
    """A share of atoms or bytes; whether it is in range is for the selection to say."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        return value if isinstance(value, float) else parse_share(value)


def parse_size(text: str | None, backend: Backend) -> tuple[int, int]:
    """`64`, `512x768` → (width, height), in whole steps of what the model can make."""
    if text is None:
        return backend.default_size, backend.default_size
    parts = text.lower().split("x")
    if not 1 <= len(parts) <= 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UserError(f"--size {text!r}: write 512 or 512x768")
    width, height = int(parts[0]), int(parts[-1])
    multiple = backend.size_multiple
    if width % multiple or height % multiple:
        raise UserError(f"--size {text}: this model needs multiples of {multiple}")
    side = backend.default_size
    if getattr(backend, "fixed_size", False) and (width, height) != (side, side):
        raise UserError(f"--size {text}: this base knows pictures of {side}×{side} only; leave --size out", about_base=True)
    return width, height


def bytes_text(count: int) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count = count / 1000  # type: ignore[assignment]
    return f"{count:.2f} GB"


def say(*lines: str, err: bool = False) -> None:
    """Print lines. Any may hold a file's name, or text of a stranger's file, so none of them moves the cursor, turns round or becomes two."""
    click.echo("\n".join(map(printable, lines)), err=err)


def printable(text: str) -> str:
    """The core, and torch with it, is imported for what needs it only: an error is said at once."""
    if text.isprintable():
        return text
    from ..sparsedict_core.shown_text import escaped

    return escaped(text)


def table(rows: list[list[str]], header: list[str]) -> list[str]:
    """Lines of columns; numbers to the right. Cells may come from a file, so they are escaped and shortened."""
    from ..sparsedict_core.shown_text import shown

    rows = [[shown(cell) for cell in row] for row in rows]
    cells = [header, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    numeric = [all(_is_number(row[column]) for row in rows) for column in range(len(header))]
    lines = []
    for row in cells:
        lines.append("  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(row, widths, numeric)).rstrip())
    return [lines[0], "  ".join("─" * width for width in widths), *lines[1:]]


def _is_number(text: str) -> bool:
    """A number, with or without a unit or %; nothing and – stand for one."""
    return re.fullmatch(r"-?[0-9][0-9,.]*(e-?[0-9]+)?( ?%| [kMG]?B)?|–|", text) is not None


def print_json(value: dict[str, Any]) -> None:
    """One line for each entry, and for each item of a list of objects: a million numbers would be a million lines. Escaped for a terminal."""
    from ..sparsedict_core.shown_text import escaped_json

    def line(item: Any) -> str:
        return escaped_json(json.dumps(item, ensure_ascii=False, allow_nan=False))

    for number, (key, item) in enumerate(value.items()):
        click.echo(f"{',' if number else '{'}\n  {line(key)}: ", nl=False)
        if isinstance(item, list) and item and all(isinstance(row, dict) for row in item):
            for place, row in enumerate(item):
                click.echo(f"{',' if place else '['}\n    {line(row)}", nl=False)
            click.echo("\n  ]", nl=False)
        else:
            click.echo(line(item), nl=False)
    click.echo("\n}")
