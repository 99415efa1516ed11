"""Sparse Dict Loader: the one node that a LoRA user expects."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..host_shared.narrowing import share_selection
from . import files
from .schema import schema
from .widgets import clip_input, clip_output, strength_input


class SparseDictLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "SparseDictLoader",
            "Sparse Dict Loader",
            "Loads a sparse dictionary and applies it to a model, whole or only its most important atoms.",
            ["lora loader", "load adapter", "sparse dictionary", "atoms"],
            inputs=[
                io.Model.Input("model", tooltip="The base model that the file was trained on, or one of its family."),
                io.Combo.Input("file", options=files.choices(), tooltip="A .safetensors file below models/sparse_dicts."),
                strength_input(),
                io.Float.Input(
                    "share", display_name="share of atoms", default=1.0, min=0.0, max=1.0, step=0.01,
                    tooltip="Share of the atoms that stay, the most important ones first. 1 is the whole file, 0 the bare base.",
                ),
                clip_input(),
            ],
            outputs=[io.Model.Output("adapted_model", display_name="model"), clip_output()],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        return files.check(file)

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None, **rest: Any) -> str:
        return files.fingerprint(file)

    @classmethod
    def execute(cls, model: Any, file: str, strength: float, share: float, clip: Any = None) -> io.NodeOutput:
        from ..comfyui_host.injection import apply_adapter
        from ..comfyui_host.rest import rest_on_clip

        value = files.read(file)
        if share < 1:
            value, _ = value.narrowed(share_selection(share))
        return io.NodeOutput(
            apply_adapter(model, value.adapter, strength, value.gains, name=value.name), rest_on_clip(clip, value.adapter, strength, value.gains, value.name)
        )
