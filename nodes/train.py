"""Train Sparse Dict: pictures and captions in, a trained adapter out, and its file on disk."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from . import files
from .save import target, unused
from .schema import image_tensor, schema
from .socket import SparseDict, SparseDictSocket

PRESETS = ("concept", "style", "edit")
#: Steps and quiet samples of each effort.
EFFORTS = {"quick": (100, 32), "balanced": (300, 96), "thorough": (800, 96)}
CHECKPOINTING = ("auto", "on", "off")


def output_folder() -> Path:
    return Path(folder_paths.get_output_directory()) / files.FOLDER


# What was trained can be loaded at once, without moving a file.
folder_paths.add_model_folder_path(files.FOLDER, str(output_folder()))


class TrainSparseDict(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "SparseDictTrain",
            "Train Sparse Dict",
            "Learns a concept, a style or one picture as a sparse dictionary on the connected model, which stays as it is. The file is "
            "written to output/sparse_dicts. Stopping keeps what was learned so far, and “resume” goes on from there.",
            ["train lora", "fine-tune", "dreambooth", "train adapter", "concept", "sparse dictionary"],
            inputs=[
                io.Model.Input("model", tooltip="The base model to learn on. It is not changed."),
                io.Image.Input("images", optional=True, tooltip="The pictures to learn from: a list or a batch. They need the VAE."),
                io.String.Input(
                    "captions", optional=True, force_input=True,
                    tooltip="One text for each picture, or one for all; several lines are several captions, drawn by turns. They need the CLIP.",
                ),
                io.Clip.Input("clip", optional=True, tooltip="The checkpoint's CLIP: for the captions, and for the base's own pictures that keep it steady."),
                io.Vae.Input("vae", optional=True, tooltip="The checkpoint's VAE: for the pictures and the previews."),
                io.Latent.Input("latents", optional=True, tooltip="In place of pictures: encoded ones."),
                io.Conditioning.Input("conditioning", optional=True, tooltip="In place of captions: one for each picture, or one for all."),
                io.String.Input("name", default="concept", tooltip="Name of the file in output/sparse_dicts. A number is added where it exists."),
                io.String.Input("word", default="", tooltip="The word that stands for the concept; it takes the place of {word} in the captions."),
                io.String.Input(
                    "caption", default="",
                    tooltip="For all pictures, where no captions are connected. {word} stands for the word; left empty, it is “a photo of {word}”.",
                ),
                io.Combo.Input(
                    "preset", options=list(PRESETS), default="concept",
                    tooltip="concept: 4 to 20 pictures of one thing. style: a look on everything. edit: one picture, to be changed by prompt.",
                ),
                io.Combo.Input("effort", options=list(EFFORTS), default="balanced", tooltip="quick: 100 steps. balanced: 300. thorough: 800."),
                # An input called "seed" would get another number at each run from the front end, and the training would run again.
                io.Int.Input("training_seed", display_name="seed", default=0, min=0, max=2**31 - 1, tooltip="The same seed gives the same dictionary."),
                _more(io.Int, "steps", 0, 0, 100000, "Steps; 0: by the effort."),
                _more(io.Float, "learning_rate", 0.0, 0.0, 1.0, "0: by the preset (0.01, without quiet samples 0.005).", step=0.0001),
                _more(io.Int, "atoms", 128, 1, 8192, "Atoms of each layer's dictionary. More can hold more, in a larger file."),
                _more(io.Int, "rank", 16, 0, 1024, "Atoms are combinations of this many directions; 0: of all, in a far larger file."),
                _more(io.Float, "density", 0.0, 0.0, 1.0, "Share of atoms that are active at once; 0: by the preset.", step=0.01),
                _more(io.Int, "batch_size", 0, 0, 1024, "Pictures a step; 0: 16 for small models, 8 or 4 for large ones."),
                _more(io.Int, "gradient_accumulation", 0, 0, 1024, "Parts that a step is computed in, for less memory; 0: by the model's size."),
                _more(io.Int, "resolution", 0, 0, 4096, "Side of a square picture of the area to train at; 0: the model's own."),
                _choice("gradient_checkpointing", CHECKPOINTING, "Compute blocks twice and keep less in memory; auto: for large models."),
                _choice("precision", ("fp32", "bf16"), "bf16 computes fp32 models in half the memory. Models in other precisions keep their own."),
                _more(io.Int, "quiet_samples", -1, -1, 4096,
                      "Pictures of the base itself, made first, so that other prompts stay as they are; made once for a model and size. "
                      "-1: by the effort. 0: none, then other prompts change more, with few pictures far more."),
                _text("quiet_prompts", "Prompts of those pictures, one a line, for models of one subject. Empty: a list of everyday scenes."),
                _text("preview_prompts", "Prompts that are shown in the node while it trains, one a line, above the base's pictures of them."),
                _more(io.Int, "preview_every", 50, 1, 100000, "Steps between previews."),
                _more(io.Int, "sampling_steps", 0, 0, 1000, "Steps of the sampler for previews and quiet samples; 0: 24."),
                _more(io.Float, "guidance", 0.0, 0.0, 100.0, "Guidance (cfg) for previews and quiet samples; 0: usual for the model.", step=0.1),
                _more(io.Int, "checkpoint_every", 100, 1, 100000, "Steps between checkpoints; two are kept, in a folder beside the file."),
                _switch("resume", "Go on from the newest checkpoint of this name or a numbered one, with the same settings, to the same number of steps."),
            ],
            outputs=[
                SparseDictSocket.Output("result", display_name="sparse dict", tooltip="What was learned, as it is in the file."),
                io.Image.Output("plot", display_name="loss plot", tooltip="The loss, and the share of active atoms with its aim, by step."),
                io.String.Output("log", display_name="log", tooltip="What happened, and the file's name."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
            is_input_list=True,
            is_output_node=True,
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, name: Any = None) -> bool | str:
        from ..sparsedict_core.errors import FileFormatError

        try:
            for text in name if isinstance(name, list) else [name]:
                if text is not None:
                    target(output_folder(), text)
        except FileFormatError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        import comfy.model_management

        from ..sparsedict_core.errors import SparseDictError
        from ..trainer.backends.comfyui import ComfyBackend, train_in_host
        from .train_events import HostCallbacks

        # All inputs are lists: pictures and captions of any number, and one of everything else.
        lists = {name: inputs.get(name) or [] for name in ("images", "captions", "latents", "conditioning")}
        one = {name: values[0] if isinstance(values, list) else values for name, values in inputs.items() if name not in lists}
        callbacks = HostCallbacks(cls.hidden.unique_id, cls.hidden.extra_pnginfo) if cls.hidden is not None else HostCallbacks(None)
        try:
            backend = ComfyBackend(one["model"], one.get("clip"), one.get("vae"), one.get("sampling_steps") or None, one.get("guidance") or None)
            config = settings(one, backend, bool(lists["conditioning"]))
            result = train_in_host(config, backend, lambda: data_of(lists, one, backend), callbacks)
        except SparseDictError as error:
            interruption = comfy.model_management.InterruptProcessingException
            if not (callbacks.asked_to_stop() or isinstance(error.__cause__, interruption)):
                raise
            # Whoever has stopped it is told so; nothing has failed.
            callbacks.ended(str(error))
            raise interruption from error
        finally:
            callbacks.over()
            comfy.model_management.soft_empty_cache()
        cancelled = result.interrupted or callbacks.cancelled()
        said = f"{result.steps} steps in {result.seconds:.0f} s; {result.path} is written."
        if result.checkpoint is not None:
            said = (
                f"stopped after {result.steps} of {config.steps} steps; the adapter so far is {result.path}, and with resume on and the same "
                f"settings this node goes on from {result.checkpoint}."
            )
        elif cancelled:
            said = f"cancelled after the last of {result.steps} steps; {result.path} is written."
        callbacks.say(said)
        callbacks.finished(result.path, result.steps if result.checkpoint is not None else None, config.steps)
        # Whoever presses the host's own button wants nothing more of the graph; the monitor's button goes on with what there is.
        if cancelled or (result.checkpoint is not None and not callbacks.kept()):
            raise comfy.model_management.InterruptProcessingException
        log = "\n".join(callbacks.lines)
        # As others will load it: the file's own precision, no gradients.
        value = SparseDict(result.adapter.requires_grad_(False).cpu(), result.path.stem)
        return io.NodeOutput(value, plot(result.log), log, ui={"text": (callbacks.lines[-1],), files.UI: files.told(result.path)})


def settings(one: dict[str, Any], backend: Any, has_conditioning: bool) -> Any:
    """The widgets as a TrainConfig; zeros stand for what the preset, the effort or the model decide."""
    from ..trainer.config import TrainConfig
    from ..trainer.presets import PRESETS as VALUES

    steps, quiet = EFFORTS[one["effort"]]
    wanted = one.get("quiet_samples", -1)
    quiet = quiet if wanted < 0 else wanted
    if one.get("clip") is None and has_conditioning:
        quiet = 0  # nothing to make other prompts with
    path = target(output_folder(), one["name"])
    resume = bool(one.get("resume"))
    large = backend.parameter_count()
    batch = one.get("batch_size") or (16 if large < 1e8 else 8 if large < 1.5e9 else 4)
    parts = one.get("gradient_accumulation") or (1 if backend.device.type == "cpu" else batch if large > 1e9 else max(1, batch // 2))
    checkpointing = one.get("gradient_checkpointing", "auto")
    chosen: dict[str, Any] = {
        "out": str((begun(path) if resume else None) or unused(path)),
        "placeholder": one["word"].strip() or None,
        "steps": one.get("steps") or steps,
        "seed": one["training_seed"],
        "atoms": one.get("atoms", 128),
        "rank": one.get("rank", 16) or None,
        "batch_size": batch,
        "gradient_accumulation": parts,
        "resolution": one.get("resolution") or None,
        "gradient_checkpointing": checkpointing == "on" or (checkpointing == "auto" and backend.is_large()),
        "precision": one.get("precision", "fp32"),
        "quiet_samples": quiet,
        "quiet_prompts": lines(one.get("quiet_prompts", "")) or None,
        "cache": str(Path(folder_paths.get_user_directory()) / "sparsedict" / "quiet"),
        "preview_prompts": lines(one.get("preview_prompts", "")),
        "preview_every": one.get("preview_every", 50),
        "checkpoint_every": one.get("checkpoint_every", 100),
        "resume": resume,
    }
    values = {**VALUES[one["preset"]], **chosen}
    for name in ("learning_rate", "density"):
        if one.get(name):
            values[name] = one[name]
    return TrainConfig(**values)


def begun(path: Path) -> Path | None:
    """The file of the run to go on with: of `path`, `path_2`, …, the one whose checkpoint was written last; None where there is none."""
    from ..trainer.checkpoint import folder_of, newest

    number = re.compile(rf"{re.escape(path.stem)}(_\d+)?")
    names = [found.stem for found in path.parent.glob("*.checkpoints") if number.fullmatch(found.stem)]
    kept = {file: newest(folder_of(file)) for file in (path.with_name(f"{name}{path.suffix}") for name in names)}
    return max((file for file in kept if kept[file]), key=lambda file: kept[file].stat().st_mtime_ns, default=None)


def data_of(lists: dict[str, list[Any]], one: dict[str, Any], backend: Any) -> Any:
    """What is learned, from whichever inputs are connected. Raises DataError naming the input that is missing or has another number."""
    from ..sparsedict_core.errors import DataError
    from ..trainer.data import ConceptData

    if bool(lists["images"]) == bool(lists["latents"]):
        raise DataError("connect either images, with the VAE, or latents: that is what is learned from.")
    if lists["images"]:
        pictures = [picture[..., :3].clone().movedim(-1, 0) * 2 - 1 for batch in lists["images"] for picture in batch]
    else:
        pictures = [latent for value in lists["latents"] for latent in backend.latents_in(value["samples"])]
    if lists["conditioning"]:
        entries = [entry for value in lists["conditioning"] for entry in value]
        texts = [f"conditioning {number}" for number in range(len(entries))]
        for text, entry in zip(texts, entries):
            backend.register(text, [entry])
        captions = [[text] for text in shared(texts, len(pictures), "conditioning")]
    else:
        captions = [caption.splitlines() for caption in shared(captions_of(lists["captions"], one), len(pictures), "captions")]
    if lists["images"]:
        return ConceptData.from_tensors(pictures, captions)
    return ConceptData.from_latents(pictures, [caption[0] for caption in captions])


def captions_of(captions: list[str], one: dict[str, Any]) -> list[str]:
    """The connected captions, else the widget's, with the word filled in."""
    from ..sparsedict_core.errors import DataError
    from ..trainer.data import DEFAULT_CAPTION, filled

    word = one["word"].strip() or None
    caption = one["caption"].strip() or (DEFAULT_CAPTION if word else "")
    if not captions and not caption:
        raise DataError("there are no captions; connect captions or a conditioning, or write a caption or a word into the node.")
    return [filled(text, word, "the caption") for text in captions or [caption]]


def shared(values: list[str], count: int, what: str) -> list[str]:
    """One for each picture; a single one is for all."""
    from ..sparsedict_core.errors import DataError

    if len(values) == 1:
        return values * count
    if len(values) != count:
        raise DataError(f"there are {count} pictures but {len(values)} {what}; connect one for each, or one for all.")
    return values


def plot(log: list[dict[str, float]]) -> Any:
    """The training curves as an IMAGE."""
    from ..pictures import training_curves

    return image_tensor(training_curves(log))


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _more(kind: Any, name: str, default: float, low: float, high: float, tooltip: str, **more: Any) -> Any:
    return kind.Input(name, default=default, min=low, max=high, tooltip=tooltip, optional=True, **more, **_advanced(kind))


def _choice(name: str, options: tuple[str, ...], tooltip: str) -> Any:
    return io.Combo.Input(name, options=list(options), default=options[0], tooltip=tooltip, optional=True, **_advanced(io.Combo))


def _text(name: str, tooltip: str) -> Any:
    return io.String.Input(name, default="", multiline=True, tooltip=tooltip, optional=True, **_advanced(io.String))


def _switch(name: str, tooltip: str) -> Any:
    return io.Boolean.Input(name, default=False, tooltip=tooltip, optional=True, **_advanced(io.Boolean))


def _advanced(kind: Any) -> dict[str, bool]:
    """Newer hosts fold such widgets away."""
    return {"advanced": True} if "advanced" in inspect.signature(kind.Input.__init__).parameters else {}
