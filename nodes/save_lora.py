"""Save as LoRA: a SPARSE_DICT as a LoRA that every other tool loads."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..sparsedict_core.errors import SparseDictError
from ..sparsedict_core.file_format import DTYPES
from ..sparsedict_core.gains import bake
from .save import check, place
from .schema import schema
from .socket import SparseDict, SparseDictSocket
from .widgets import existing_input

FOLDERS = ("output", "models/loras")
STYLES = ("kohya", "diffusers")


class SaveAsLora(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "SparseDictSaveAsLora",
            "Save as LoRA",
            "Writes a sparse dictionary as a LoRA for any tool: exactly where its atoms have no thresholds, else the nearest LoRA, with its error.",
            ["export lora", "convert to lora", "save lora"],
            inputs=[
                SparseDictSocket.Input("sparse_dict", tooltip="What to save, with its selection and gains."),
                io.Model.Input("model", optional=True, tooltip="The model that it is for. The LoRA then has the names that this host and kohya's tools know, and a fit can be made."),
                io.Conditioning.Input("positive", optional=True, tooltip="A prompt for the dictionary: needed where atoms have thresholds, as the nearest LoRA is fitted on what they do for it."),
                io.Latent.Input("latent_image", optional=True, display_name="latent", tooltip="Size of the picture that the prompt is tried on; needed with a prompt."),
                io.String.Input("filename", default="loras/concept", tooltip="Name, with folders if you like; .safetensors is added."),
                io.Combo.Input("folder", options=list(FOLDERS), default="output", tooltip="Below which folder. From models/loras it can be loaded at once."),
                existing_input(),
                io.Combo.Input("style", options=list(STYLES), default="kohya", tooltip="How its parts are named: as kohya's tools do, or as diffusers does."),
                io.Int.Input("rank", default=0, min=0, max=1024, tooltip="At most this rank. 0: as many as there are atoms."),
                io.Combo.Input("precision", options=list(DTYPES), default="fp16", tooltip="fp16 and bf16 take half the bytes of fp32."),
            ],
            outputs=[
                io.String.Output("path", display_name="path", tooltip="The file that was written."),
                io.String.Output("text", display_name="text", tooltip="Ranks, bytes, and how near the LoRA is."),
            ],
            is_output_node=True,
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, filename: str | None = None) -> bool | str:
        return check(filename)

    @classmethod
    def execute(
        cls, sparse_dict: SparseDict, filename: str, folder: str, existing: str, style: str, rank: int, precision: str, model: Any = None, positive: Any = None,
        latent_image: dict | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        from ..comfyui_host.lora import host_modules, inputs_of
        from ..lora.exporting import export_lora

        path = place(filename, folder, "loras", existing)
        adapter = bake(sparse_dict.adapter, sparse_dict.gains)
        samples = None
        if model is not None and positive is not None:
            if latent_image is None:
                raise SparseDictError("a prompt is connected and no latent: connect one of the size that you make pictures of.")
            samples = lambda: inputs_of(model, adapter, positive, latent_image)  # noqa: E731
        host = None if model is None else host_modules(model)
        report = export_lora(adapter, path, style, rank or None, DTYPES[precision], existing == "overwrite", samples, host)
        return io.NodeOutput(str(report.path), report.text, ui={"text": (report.text,)})
