"""`sparsedict train`: images and captions in, an adapter out. The loop is the trainer's; here are only its options by name."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from .common import UserError, bytes_text, check_out, model_options, open_model, out_option, print_json

if TYPE_CHECKING:
    from ..trainer.backends.base import Backend
    from ..trainer.config import TrainConfig

FOLDER = click.Path(path_type=Path, readable=False)


class Setting(NamedTuple):
    """An option and the field of TrainConfig that it sets. Unset, the preset decides, else TrainConfig's own default."""

    flags: tuple[str, ...]
    field: str
    type: Any
    help: str


# Names that kohya's users know come first, where there is one; the field's own name is the other.
SETTINGS = [
    Setting(("--word", "--placeholder"), "placeholder", str, "The word that stands for the concept; needed where images have no .txt captions."),
    Setting(("--caption",), "caption", str, "Caption of images without a .txt, with {word} in it: 'a picture of {word}'."),
    Setting(("--max-train-steps", "--steps"), "steps", click.IntRange(1), "Training steps."),
    Setting(("--train-batch-size", "--batch-size"), "batch_size", click.IntRange(1), "Rows of a whole step, over all processes and accumulated batches."),
    Setting(("--gradient-accumulation-steps",), "gradient_accumulation", click.IntRange(1), "Parts that a step's batch is worked through in, to save memory."),
    Setting(("--learning-rate", "--lr"), "learning_rate", float, "Learning rate."),
    Setting(("--lr-scheduler",), "lr_schedule", str, "By name: linear decay at the end, cosine, constant."),
    Setting(("--lr-warmup-steps",), "warmup_steps", click.IntRange(0), "Steps until the full learning rate."),
    Setting(("--optimizer-type", "--optimizer"), "optimizer", str, "By name: adam, adamw, sgd, nadam, radam, rmsprop, adafactor."),
    Setting(("--resolution",), "resolution", click.IntRange(1), "Pixels of a square of the same area; images keep their shape."),
    Setting(("--network-dim", "--rank"), "rank", click.IntRange(1), "Width of the basis that the atoms share."),
    Setting(("--atoms",), "atoms", click.IntRange(1), "Atoms a site."),
    Setting(("--density",), "density", float, "Target share of coefficients that are not zero."),
    Setting(("--encoder",), "encoder", str, "How coefficients are computed, by name."),
    Setting(("--quiet-weight",), "quiet_weight", float, "Weight of the quiet term, which keeps other prompts as they are; 0 turns it off."),
    Setting(("--nested",), "nested", float, "Share of steps that use only the first atoms, so that few carry the concept; 0 turns it off."),
    Setting(("--quiet-samples",), "quiet_samples", click.IntRange(0), "How many pictures of other prompts the base makes for it, once."),
    Setting(("--caption-dropout-rate",), "caption_dropout", float, "Share of captions left empty."),
    Setting(("--mixed-precision",), "precision", click.Choice(["fp32", "bf16"]), "bf16 computes in half the memory; the adapter stays fp32."),
    Setting(("--min-snr-gamma",), "min_snr_gamma", float, "Weigh noise levels by min-SNR (5 is usual)."),
    Setting(("--reg-data-dir", "--prior-images"), "prior_images", FOLDER, "Folder of prior-preservation images."),
    Setting(("--prior-caption",), "prior_caption", str, "Caption of prior-preservation images without a .txt; never the concept's own word."),
    Setting(("--seed",), "seed", int, "Everything random follows from it."),
    Setting(("--save-every-n-steps",), "checkpoint_every", click.IntRange(1), "Steps between checkpoints."),
    Setting(("--sample-every-n-steps",), "preview_every", click.IntRange(1), "Steps between previews."),
    Setting(("--logging-dir",), "tensorboard", FOLDER, "Write a TensorBoard log there."),
]  # fmt: skip


def settings_options(function: Callable) -> Callable:
    for setting in reversed(SETTINGS):
        name = f"set_{setting.field}"
        option = click.option(*setting.flags, name, type=setting.type, default=None, help=setting.help)
        function = option(function)
    return function


@click.command("train")
@click.argument("images", type=FOLDER)
@click.option("--preset", type=click.Choice(["concept", "style", "edit"]), default="concept", show_default=True,
              help="concept: 4 to 20 images of one thing. style: a look. edit: one image, to change it by prompt.")
@model_options
@settings_options
@click.option("--sample-prompt", "prompts", multiple=True, help="A prompt for previews; repeat it for several.")
@click.option("--gradient-checkpointing", is_flag=True, help="Less memory for more time.")
@click.option("--moments/--no-moments", default=None, help="Store what pruning by the greedy order and refit needs: 4·m² bytes a site, 64 kB for 128 atoms.  [default: stored]")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint of a run with the same --out, to the same result.")
@click.option("--show-config", is_flag=True, help="Print every setting with its value and train nothing.")
@out_option(help="The adapter, .safetensors.")
def command(
    images: Path, preset: str, model: str, device: str | None, dtype: str | None, prompts: tuple[str, ...], gradient_checkpointing: bool,
    moments: bool | None, resume: bool, show_config: bool, out: Path, overwrite: bool, **settings: Any,
) -> None:  # fmt: skip
    """Train an adapter from a folder of images.

    Captions are .txt files beside the images, or one caption with a word of your choice. The preset decides what you do not.
    Ctrl-C leaves an adapter that can be used and says where.

    \b
    Examples:
      sparsedict train photos/ --word zorp --caption "a {word} picture" --out zorp.safetensors
      sparsedict train photos/ --model sdxl.safetensors --word sks --dtype bf16 --gradient-checkpointing --out sks.safetensors
      sparsedict train one-picture/ --preset edit --out edit.safetensors
      sparsedict train photos/ --out zorp.safetensors --resume
    """
    check_out(out, overwrite or resume, ".safetensors")
    chosen = {name.removeprefix("set_"): value for name, value in settings.items() if value is not None}
    chosen.update(images=images, out=out, overwrite=overwrite)
    if prompts:
        chosen["preview_prompts"] = list(prompts)
    if gradient_checkpointing:
        chosen["gradient_checkpointing"] = True
    if moments is not None:
        chosen["moments"] = moments
    if resume:
        chosen["resume"] = True
    config = make_config(preset, chosen)
    if show_config:
        print_json(config.to_dict())
        return
    start(config, set(chosen), model, device, dtype)


def make_config(preset: str, chosen: dict[str, Any]) -> TrainConfig:
    """The preset's settings, with the chosen ones over them."""
    from ..trainer.config import TrainConfig
    from ..trainer.presets import PRESETS

    known = {field.name for field in dataclasses.fields(TrainConfig)}
    unknown = sorted(set(chosen) - known)
    if unknown:
        raise UserError(f"this trainer has no setting {', '.join(unknown)}")
    return TrainConfig(**{**PRESETS[preset], **chosen})


def start(config: TrainConfig, asked: set[str], model: str, device: str | None, dtype: str | None) -> None:
    from ..trainer import train

    backend = open_model(model, device, dtype)
    result = train(fitted(config, backend, asked), backend)
    click.echo(f"{result.path}: {bytes_text(Path(result.path).stat().st_size)}, {result.adapter.atom_count} atoms")


def fitted(config: TrainConfig, backend: Backend, asked: set[str]) -> TrainConfig:
    """The config with rows, accumulation and recomputed blocks as the model and the device's memory allow; what was `asked` for stays."""
    from ..trainer.policy import settle

    side = config.resolution or backend.default_size
    parameters = sum(parameter.numel() for parameter in backend.denoiser.parameters())
    weights = {"torch.float32": "fp32", "torch.float16": "fp16"}.get(str(backend.dtype), "bf16")
    given = {name: getattr(config, name) for name in asked}
    chosen = settle(given, backend.family, parameters, backend.device, side, weights, int(os.environ.get("WORLD_SIZE", "1")))
    settings = {name: chosen[name] for name in ("batch_size", "gradient_accumulation", "gradient_checkpointing")}
    if settings != {name: getattr(config, name) for name in settings}:
        rows = chosen["batch_size"] // chosen["gradient_accumulation"]
        click.echo(f"batch {chosen['batch_size']}, {rows} at once{', recomputed blocks' * chosen['gradient_checkpointing']}: by the model's size and the memory that is free.", err=True)
    return dataclasses.replace(config, **settings)
