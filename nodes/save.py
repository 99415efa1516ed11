"""Save Sparse Dict: a file below the output folder or models/sparse_dicts, and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..sparsedict_core.errors import FileFormatError
from ..sparsedict_core.file_format import DTYPES, save
from ..sparsedict_core.gains import bake
from . import files
from .schema import schema
from .socket import SparseDict, SparseDictSocket
from .widgets import existing_input

FOLDERS = ("output", "models/sparse_dicts")
LONGEST_PATH, LONGEST_PART = 1000, 200  # characters, and bytes


class SaveSparseDict(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "SparseDictSave",
            "Save Sparse Dict",
            "Writes a sparse dictionary as one .safetensors file. Atoms that were left out are not in it, and gains are part of it.",
            ["save adapter", "export", "save lora"],
            inputs=[
                SparseDictSocket.Input("sparse_dict", tooltip="What to save, with its selection and gains."),
                io.String.Input("filename", default="sparse_dicts/concept", tooltip="Name, with folders if you like; .safetensors is added."),
                io.Combo.Input("folder", options=list(FOLDERS), default="output", tooltip="Below which folder. From models/sparse_dicts it can be loaded at once."),
                existing_input(),
                io.Combo.Input("precision", options=list(DTYPES), default="fp16", tooltip="fp16 and bf16 take half the bytes of fp32."),
                io.Boolean.Input(
                    "moments", default=True,
                    tooltip="Keep the moments where they are known: the greedy order and a refit need them. They can be most of the file's bytes.",
                ),
                io.String.Input("trigger_words", display_name="trigger words", default="", tooltip="Separated by commas. Empty: those that it has."),
            ],
            outputs=[io.String.Output("path", display_name="path", tooltip="The file that was written.")],
            is_output_node=True,
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, filename: str | None = None) -> bool | str:
        return check(filename)

    @classmethod
    def execute(
        cls, sparse_dict: SparseDict, filename: str, folder: str, existing: str, precision: str, moments: bool, trigger_words: str
    ) -> io.NodeOutput:
        root = Path(folder_paths.get_output_directory() if folder == "output" else folder_paths.get_folder_paths(files.FOLDER)[0])
        path = target(root, filename)
        if existing == "number":
            path = unused(path)
        adapter = bake(sparse_dict.adapter, sparse_dict.gains)
        adapter.metadata.setdefault("title", path.stem)
        words = [word.strip() for word in trigger_words.split(",") if word.strip()]
        if words:
            adapter.metadata["trigger_words"] = words
        path.parent.mkdir(parents=True, exist_ok=True)
        report = save(adapter, path, DTYPES[precision], overwrite=existing == "overwrite", moments=moments)
        return io.NodeOutput(str(report.path), ui={"text": (report.text,), files.UI: files.shown_name(report.path)})


def check(filename: str | None) -> bool | str:
    """For `validate_inputs`: True, or what is wrong with the name. None: it comes over a link."""
    try:
        if filename is not None:
            target(Path(folder_paths.get_output_directory()), filename)
    except FileFormatError as error:
        return str(error)
    return True


def target(root: Path, filename: str) -> Path:
    """The file's path below `root`. Raises FileFormatError for a name that is empty or leads elsewhere."""
    name = filename.strip().replace("\\", "/").removesuffix(".safetensors")
    if not is_file_name(name):
        raise FileFormatError(f"{filename!r:.80} is no name that a file can have: it is too long, or holds a zero byte or half a character; choose another.")
    root = Path(os.path.realpath(root))
    path = Path(os.path.realpath(root / f"{name}.safetensors"))
    if not name or name.endswith("/"):
        raise FileFormatError(f"{filename!r} names no file; give a name such as sparse_dicts/zorp.")
    if root not in path.parents or Path(name).is_absolute() or ":" in name:
        raise FileFormatError(f"{filename!r} leads out of the folder; give a name below it, without .. or a drive.")
    return path


def is_file_name(name: str) -> bool:
    """Whether every part can name a file, with room for a number and for the name of a file that is being written."""
    try:
        return "\0" not in name and len(name) < LONGEST_PATH and all(len(part.encode()) <= LONGEST_PART for part in name.split("/"))
    except UnicodeEncodeError:
        return False


def unused(path: Path) -> Path:
    """`path`, or the first of `path_2`, `path_3`, … that neither exists nor is left to be written by a training that was stopped."""
    from ..trainer.checkpoint import folder_of

    number, wanted = 2, path
    while wanted.exists() or folder_of(wanted).exists():
        wanted, number = path.with_name(f"{path.stem}_{number}{path.suffix}"), number + 1
    return wanted
