"""Load Image Set: a folder of pictures, each with its caption, as two lists that stay in step."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from pathlib import Path

import torch
from comfy_api.latest import io

from ..trainer.config import TrainConfig
from ..trainer.options import options_of
from .schema import schema
from .widgets import folded

BUILT_IN = "demo: "  # before the name of a set that comes with the pack; a colon is in no folder's name on Windows
CONCEPTS = Path(__file__).resolve().parents[1] / "demo" / "concepts"


class LoadImageSet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        options = options_of(TrainConfig)
        return schema(
            node_id="SparseDictLoadImageSet",
            display_name="Load Image Set",
            description=(
                "Reads the pictures of a folder in ComfyUI's input folder, and the .txt of the same name beside each as its caption. "
                "A picture that cannot be used is named, not left out. The sets “demo: …” come with SparseDict, for the Demo Model."
            ),
            aliases=["dataset", "training images", "captions", "image folder"],
            inputs=[
                io.Combo.Input("folder", options=choices(), tooltip="A folder inside ComfyUI's input folder, or one of the demo sets. Press R after adding one."),
                io.String.Input(
                    "caption", default="",
                    tooltip="For pictures without a .txt. {word} stands for the word below; left empty with a word, it is “a photo of {word}”.",
                ),
                io.String.Input("word", default="", tooltip="The word that shall stand for the concept; it takes the place of {word} in every caption."),
                io.Combo.Input(
                    "masks", options=list(options["masks"].choices), default="files", optional=True, tooltip=options["masks"].help, **folded(io.Combo)
                ),
                io.Boolean.Input(
                    "skip_unreadable", display_name="skip broken", default=False, optional=True, tooltip=options["skip_unreadable"].help,
                    **folded(io.Boolean),
                ),
            ],
            outputs=[
                io.Image.Output("images", display_name="images", is_output_list=True, tooltip="One picture each, in the order of their names."),
                io.String.Output(
                    "captions", display_name="captions", is_output_list=True,
                    tooltip="One text for each picture; where it has several lines, training draws one of them each time.",
                ),
                io.String.Output("names", display_name="names", is_output_list=True, tooltip="The pictures' file names."),
                io.Mask.Output("areas", display_name="masks", is_output_list=True, tooltip="For Train Sparse Dict: where each picture counts; white where there is no mask."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, folder: str | None = None) -> bool | str:
        return True if folder is None else check(folder)

    @classmethod
    def fingerprint_inputs(cls, folder: str | None = None, **rest: str | None) -> str:
        digest = hashlib.sha256(repr((folder, sorted(rest.items()))).encode(errors="backslashreplace"))
        # None: the name comes over a link. An error here would count as a change at each run.
        path = None if folder is None else path_of(folder)
        if path is not None and check(str(folder)) is True:
            for file in sorted(path.iterdir()):
                with contextlib.suppress(OSError):  # a link that leads nowhere
                    status = file.stat()
                    digest.update(repr((file.name, status.st_size, status.st_mtime_ns)).encode())
        return digest.hexdigest()

    @classmethod
    def execute(cls, folder: str, caption: str, word: str, masks: str = "files", skip_unreadable: bool = False) -> io.NodeOutput:
        from ..sparsedict_core.errors import DataError
        from ..trainer.data import ConceptData
        from ..trainer.data_summary import summary

        problem = check(folder)
        path = path_of(folder)
        if problem is not True or path is None:
            raise DataError(str(problem))
        data = ConceptData.from_folder(path, caption=caption.strip() or None, placeholder=word.strip() or None, masks=masks, skip_unreadable=skip_unreadable)
        logging.info("\n".join(summary(data, word=word.strip() or None)))
        images = [((item.image + 1) / 2).movedim(0, -1)[None] for item in data]
        areas = [torch.ones(1, *item.image.shape[1:]) if item.mask is None else item.mask for item in data]
        return io.NodeOutput(images, ["\n".join(item.captions) for item in data], [item.name for item in data], areas)


def choices() -> list[str]:
    """The folders of the input folder, at any depth, then the sets of the pack."""
    import folder_paths

    root = Path(folder_paths.get_input_directory())
    folders = sorted(path.relative_to(root).as_posix() for path in root.glob("**/") if path != root)
    return [*folders, *(BUILT_IN + path.name for path in sorted(CONCEPTS.glob("*/")))]


def path_of(folder: str) -> Path | None:
    """Where a set lies, whether it is there or not; None for a name that leads out of its place."""
    import folder_paths

    root, name = (CONCEPTS, folder.removeprefix(BUILT_IN)) if folder.startswith(BUILT_IN) else (Path(folder_paths.get_input_directory()), folder)
    try:
        path = (root / name).resolve()
        if not path.is_dir():  # a workflow from Windows separates folders by a backslash
            path = (root / name.replace("\\", "/")).resolve()
        return path if path.is_relative_to(root.resolve()) else None
    except (OSError, ValueError, RuntimeError):  # too long, a zero byte, half a character, links in a circle
        return None


def check(folder: str) -> bool | str:
    """True, or what is wrong with the set's name in one sentence."""
    from ..trainer.images import is_picture

    path = path_of(folder)
    if path is None or not path.is_dir():
        return f"{folder!r:.200} is no folder in ComfyUI's input folder; put the pictures into a folder below input/, press R, or choose another set."
    try:
        inside = list(path.iterdir())
    except OSError as error:
        return f"the folder {folder!r} in ComfyUI's input folder cannot be read: {error.strerror or error}; change its rights."
    if not any(is_picture(file) for file in inside):
        return f"the folder {folder!r} in ComfyUI's input folder holds no picture; put the training pictures directly into it."
    return True
