"""Apply Sparse Dict: onto a MODEL, beside whatever is on it already."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .schema import schema
from .socket import SparseDict, SparseDictSocket
from .widgets import clip_input, clip_output, strength_input


class ApplySparseDict(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "SparseDictApply",
            "Apply Sparse Dict",
            "Adds a sparse dictionary to a model. Chains with itself and with LoRA loaders; no weights are patched.",
            ["apply adapter", "lora", "atoms", "dictionary"],
            inputs=[
                io.Model.Input("model", tooltip="A model of the family that the dictionary was trained on."),
                SparseDictSocket.Input("sparse_dict", tooltip="From Load Sparse Dict, Select Atoms, Compose Sparse Dicts or Train Sparse Dict."),
                strength_input(),
                io.Float.Input(
                    "start_percent", display_name="start", default=0.0, min=0.0, max=1.0, step=0.01,
                    tooltip="Where in the sampling it begins to act: 0 is pure noise.",
                ),
                io.Float.Input(
                    "end_percent", display_name="end", default=1.0, min=0.0, max=1.0, step=0.01,
                    tooltip="Where in the sampling it stops acting: 1 is the finished picture. Must be more than start.",
                ),
                clip_input(),
            ],
            outputs=[io.Model.Output("adapted_model", display_name="model"), clip_output()],
        )  # fmt: skip

    @classmethod
    def execute(cls, model: Any, sparse_dict: SparseDict, strength: float, start_percent: float, end_percent: float, clip: Any = None) -> io.NodeOutput:
        from ..comfyui_host.injection import apply_adapter
        from ..comfyui_host.rest import rest_on_clip

        adapter, gains, name = sparse_dict.adapter, sparse_dict.gains, sparse_dict.name
        return io.NodeOutput(
            apply_adapter(model, adapter, strength, gains, start_percent, end_percent, name), rest_on_clip(clip, adapter, strength, gains, name)
        )
