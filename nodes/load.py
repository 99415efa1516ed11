"""Load Sparse Dict: a file becomes a SPARSE_DICT."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import files
from .schema import schema
from .socket import SparseDictSocket


class LoadSparseDict(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "SparseDictLoad",
            "Load Sparse Dict",
            "Reads a sparse dictionary from models/sparse_dicts, to be selected from, composed, inspected or applied.",
            ["load adapter", "atoms", "dictionary", "lora"],
            inputs=[io.Combo.Input("file", options=files.choices(), tooltip="A .safetensors file below models/sparse_dicts.")],
            outputs=[
                SparseDictSocket.Output("result", display_name="sparse dict"),
                io.String.Output("trigger_words", display_name="trigger words", tooltip="Words the file was trained with; put them in the prompt."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        return files.check(file)

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None, **rest: Any) -> str:
        return files.fingerprint(file)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        value = files.read(file)
        return io.NodeOutput(value, files.trigger_words(value))
