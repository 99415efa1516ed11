"""Train Sparse Dict: pictures and captions in, a trained adapter out, and its file on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..host_shared.file_names import target
from ..host_shared.run_settings import EFFORTS, config_of, decided, file_of_run
from ..trainer.options import Option, widgets
from ..trainer.presets import PRESETS
from . import files
from .schema import image_tensor, schema
from .socket import SparseDict, SparseDictSocket
from .widgets import folded

#: What a person wants to see of a run though it may be left empty; web/train_node.js has the same.
ALWAYS_SHOWN = ("preview_prompts",)


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
                io.Mask.Input("masks", optional=True, tooltip="One for each picture: what is white is learned, the rest is not looked at."),
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
                *_settings(),
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
        lists = {name: inputs.get(name) or [] for name in ("images", "captions", "latents", "conditioning", "masks")}
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
        text = f"{result.steps} steps in {result.seconds:.0f} s; {result.path} is written."
        if result.checkpoint is not None:
            text = (
                f"stopped after {result.steps} of {config.steps} steps; the adapter so far is {result.path}, and with resume on and the same "
                f"settings this node goes on from {result.checkpoint}."
            )
        elif cancelled:
            text = f"cancelled after the last of {result.steps} steps; {result.path} is written."
        callbacks.say(text)
        callbacks.finished(result.path, result.steps if result.checkpoint is not None else None, config.steps)
        # Whoever presses the host's own button wants nothing more of the graph; the monitor's button goes on with what there is.
        if cancelled or (result.checkpoint is not None and not callbacks.kept()):
            raise comfy.model_management.InterruptProcessingException
        log = "\n".join(callbacks.lines)
        # For the nodes after it: as it was trained, in fp32, but without gradients.
        value = SparseDict(result.adapter.requires_grad_(False).cpu(), result.path.stem)
        return io.NodeOutput(value, plot(result.log), log, ui={"text": (callbacks.lines[-1],), files.UI: files.shown_name(result.path)})


def settings(one: dict[str, Any], backend: Any, has_conditioning: bool) -> Any:
    """The widgets as a TrainConfig; what is unset is decided by the preset, the effort or the model."""
    from ..trainer.config import TrainConfig

    out = file_of_run(target(output_folder(), one["name"]), bool(one.get("resume")))
    own = decided(one["effort"], out, one["word"], one["training_seed"], Path(folder_paths.get_user_directory()) / "sparsedict" / "quiet")
    chosen = {setting.name: _value(setting, one[setting.name]) for setting in widgets(TrainConfig) if _is_set(setting, one)}
    if backend.casts_weights():
        chosen.setdefault("gradient_checkpointing", True)
    values = {**own, **chosen}
    if one.get("clip") is None and has_conditioning:
        values["quiet_samples"] = 0  # nothing to make other prompts with
    return config_of(one["preset"], values, chosen, backend, backend.parameter_count())


def _is_set(setting: Option, one: dict[str, Any]) -> bool:
    return setting.name in one and (setting.widget.unset is None or one[setting.name] != setting.widget.unset)


def _value(setting: Option, given: Any) -> Any:
    """What a widget means to the trainer."""
    if setting.name == "rank":
        return given or None
    if isinstance(setting.default, bool):
        return given in (True, "on")
    if setting.name.endswith("_prompts"):
        return lines(given) or setting.default
    return given


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
    masks = [mask[None].clone() for batch in lists["masks"] for mask in batch]
    if lists["images"]:
        return ConceptData.from_tensors(pictures, captions, masks or None)
    if masks:
        raise DataError("masks belong to pictures; connect images in place of latents, or leave the masks out.")
    return ConceptData.from_latents(pictures, [caption[0] for caption in captions])


def captions_of(captions: list[str], one: dict[str, Any]) -> list[str]:
    """The connected captions, else the widget's, with the word filled in."""
    from ..sparsedict_core.errors import DataError
    from ..trainer.captions import DEFAULT_CAPTION, filled

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

    return image_tensor(training_curves(log, for_node=True))


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _settings() -> list[Any]:
    """The trainer's settings that the node shows, and the sampler's two; saved workflows know them by their order."""
    from ..trainer.config import TrainConfig

    shown = {setting.widget.place: _widget(setting) for setting in widgets(TrainConfig)}
    shown[14] = io.Int.Input(
        "sampling_steps", display_name=auto("sampling steps", 0), default=0, min=0, max=1000, optional=True,
        tooltip="Steps of the sampler for previews and quiet samples; 0: 24.", **folded(io.Int),
    )  # fmt: skip
    shown[15] = io.Float.Input(
        "guidance", display_name=auto("guidance", 0), default=0.0, min=0.0, max=100.0, step=0.1, optional=True, tooltip="Guidance (cfg) for previews and quiet samples; 0: usual for the model.",
        **folded(io.Float),
    )  # fmt: skip
    return [shown[place] for place in sorted(shown)]


def _widget(setting: Option) -> Any:
    widget = setting.widget
    choices = widget.choices or setting.choices
    more: dict[str, Any] = {"default": widget.default}
    if choices:
        kind, more["options"] = io.Combo, list(choices)
    elif isinstance(setting.default, bool):
        kind = io.Boolean
    elif isinstance(widget.default, str):
        kind, more["multiline"] = io.String, True
    else:
        kind = io.Float if isinstance(widget.default, float) else io.Int
        more |= {"min": min(widget.default, widget.least), "max": widget.most} | ({"step": widget.step} if widget.step else {})
    if isinstance(widget.unset, (int, float)):
        more["display_name"] = auto(setting.name.replace("_", " "), widget.unset)
    if setting.name not in ALWAYS_SHOWN:
        more |= folded(kind)
    return kind.Input(setting.name, optional=True, tooltip=" ".join(filter(None, (setting.help, widget.note))), **more)


def auto(name: str, value: float) -> str:
    """A number's label that says which value leaves it to preset, effort and model."""
    return f"{name} ({value:g} = auto)"
