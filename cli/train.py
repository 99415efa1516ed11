"""`sparsedict train`: images and captions in, an adapter out. The loop is the trainer's, the options are its settings (`trainer/config.py`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..trainer.config import TrainConfig
from ..trainer.options import command_line
from .common import UserError, bytes_text, check_out, model_options, open_model, out_option, print_json, say

if TYPE_CHECKING:
    from ..trainer.backends.base import Backend


@click.command("train")
@click.argument("images", type=click.Path(path_type=Path, readable=False))
@click.option("--preset", type=click.Choice(["concept", "style", "edit"]), default="concept", show_default=True,
              help="concept: 4 to 20 images of one thing. style: a look. edit: one image, to change it by prompt.")
@model_options
@click.option("--config", "file", type=click.Path(path_type=Path, readable=False), default=None,
              help="Settings from a .toml file, such as the .run.toml that a run writes beside its adapter. Options go before it, it before the preset.")
@command_line(TrainConfig)
@click.option("--shard", is_flag=True, help="Each process of `accelerate launch` holds a part of the base: for one that fits on no single card.")
@click.option("--each", is_flag=True, help="An adapter for each sub-folder, named after it and with its name as the word; --out is then a folder.")
@click.option("--show-config", is_flag=True, help="Print every setting with its value and train nothing.")
@out_option(help="The adapter, .safetensors.")
def command(
    images: Path, preset: str, model: str, device: str | None, dtype: str | None, file: Path | None, shard: bool, each: bool, show_config: bool,
    out: Path, overwrite: bool, **settings: Any,
) -> int:  # fmt: skip
    """Train an adapter from a folder of images.

    Captions are .txt files beside the images, or one caption with a word of your choice. The preset decides what you do not.
    Ctrl-C leaves an adapter that can be used and says where; so do SIGTERM and a terminal that is closed. --resume takes the settings of the
    run that it goes on with; steps, previews, checkpoints and logs may be others.

    \b
    Examples:
      sparsedict train photos/ --word zorp --caption "a {word} picture" --out zorp.safetensors
      sparsedict train photos/ --model sdxl.safetensors --word sks --dtype bf16 --gradient-checkpointing --out sks.safetensors
      sparsedict train one-picture/ --preset edit --out edit.safetensors
      sparsedict train photos/ --out zorp.safetensors --resume
      sparsedict train concepts/ --each --model sdxl --out adapters/
      sparsedict train others/ --config zorp.run.toml --word blick --out blick.safetensors
    """
    from ..trainer.run_file import read_settings

    chosen = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items() if value not in (None, ())}
    if each and settings["placeholder"] is not None:
        raise UserError("--each gives each concept its folder's name as the word; leave --word out")
    chosen = {**(read_settings(file) if file else {}), **chosen, "images": images, "out": out, "overwrite": overwrite}
    wanted = concepts(chosen) if each else [chosen]
    for one in wanted:
        check_out(one["out"], overwrite or bool(settings["resume"]), ".safetensors")
    runs = [make_config(preset, one) for one in wanted]
    if show_config:
        print_json(runs[0].to_dict())
        return 0
    return start(runs, set(chosen), model, device, dtype, shard)


def concepts(chosen: dict[str, Any]) -> list[dict[str, Any]]:
    """What is chosen for the run of each sub-folder, `zorp` or as kohya names it: `10_zorp dog`."""
    from ..trainer.captions import REPEATS
    from ..trainer.image_folder import MASK_FOLDERS, listed

    found = []
    for folder in listed(chosen["images"])[1]:
        if folder.name.lower() in MASK_FOLDERS or folder.name.startswith("."):
            continue
        named = REPEATS.fullmatch(folder.name)
        word = named[2].split()[0] if named else folder.name
        found.append({**chosen, "placeholder": word, "images": folder, "out": chosen["out"] / f"{word}.safetensors"})
    if not found:
        raise UserError(f"{chosen['images']} has no sub-folders; --each needs one for each concept")
    return found


def make_config(preset: str, chosen: dict[str, Any]) -> TrainConfig:
    """The preset's settings, over them those of the run that is gone on with, over them the chosen ones."""
    from ..trainer.presets import PRESETS
    from ..trainer.run_file import settings_to_go_on

    before = settings_to_go_on(chosen["out"]) if chosen.get("resume") else {}
    return TrainConfig(**{**PRESETS[preset], **before, **chosen})


def start(runs: list[TrainConfig], asked: set[str], model: str, device: str | None, dtype: str | None, shard: bool = False) -> int:
    """Train one after the other; returns the exit code: 0, or 128 and the signal's number where one ended it early, as a shell has it."""
    from ..trainer import train
    from ..trainer.run_file import write_settings

    backend = open_model(model, device, dtype, shard)
    for config in runs:
        config = fitted(config, backend, asked)
        result = train(config, backend)
        write_settings(config)
        say(f"{result.path}: {bytes_text(Path(result.path).stat().st_size)}, {result.adapter.atom_count} atoms")
        if result.signal:
            return 128 + result.signal
    return 0


def fitted(config: TrainConfig, backend: Backend, asked: set[str]) -> TrainConfig:
    """The config with rows, accumulation and recomputed blocks as the model and the device's memory allow, and a line that says so."""
    from ..trainer import fit
    from ..trainer.policy import parameter_count

    found = fit.fitted(config, backend, asked, parameter_count(backend.denoiser), int(os.environ.get("WORLD_SIZE", "1")))
    if found != config:
        rows = found.batch_size // found.gradient_accumulation
        say(f"batch {found.batch_size}, {rows} at once{', recomputed blocks' * found.gradient_checkpointing}: by the model's size and the memory that is free.", err=True)
    return found
