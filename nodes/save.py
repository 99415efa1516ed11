"""Save Sparse Dict: a file below the output folder or models/sparse_dicts, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..host_shared.file_names import target, unused
from ..sparsedict_core.errors import FileFormatError
from ..sparsedict_core.file_format import DTYPES, save
from ..sparsedict_core.gains import bake
from . import files
from .schema import schema
from .socket import SparseDict, SparseDictSocket
from .widgets import existing_input

FOLDERS = ("output", "models/sparse_dicts")


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
        path = place(filename, folder, files.FOLDER, existing)
        adapter = bake(sparse_dict.adapter, sparse_dict.gains)
        adapter.metadata.setdefault("title", path.stem)
        words = [word.strip() for word in trigger_words.split(",") if word.strip()]
        if words:
            adapter.metadata["trigger_words"] = words
        path.parent.mkdir(parents=True, exist_ok=True)
        report = save(adapter, path, DTYPES[precision], overwrite=existing == "overwrite", moments=moments)
        return io.NodeOutput(str(report.path), ui={"text": (report.text,), files.UI: files.shown_name(report.path)})


def place(filename: str, folder: str, models: str, existing: str) -> Path:
    """The file that is to be written: below the output folder, or the first of the host's folders of such `models`."""
    path = target(Path(folder_paths.get_output_directory() if folder == "output" else folder_paths.get_folder_paths(models)[0]), filename)
    return unused(path) if existing == "number" else path


def check(filename: str | None) -> bool | str:
    """For `validate_inputs`: True, or what is wrong with the name. None: it comes over a link."""
    try:
        if filename is not None:
            target(Path(folder_paths.get_output_directory()), filename)
    except FileFormatError as error:
        return str(error)
    return True
