"""Sparse Dict from LoRA: a LoRA of the host's becomes a SPARSE_DICT for the model that it is for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..sparsedict_core.errors import FileFormatError, SparseDictError
from ..sparsedict_core.greedy import has_moments
from .schema import schema
from .socket import SparseDict, SparseDictSocket
from .table_note import table_note

UI = "sparsedict_lora"
FOLDER = "loras"
BUILT_IN = "demo: "
DEMO = Path(__file__).resolve().parents[1] / "demo" / "loras"
STEPS = 8  # of the calibration: atoms are ordered by it, no picture is made


class SparseDictFromLora(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "SparseDictFromLora",
            "Sparse Dict from LoRA",
            "Takes a LoRA apart into atoms that can be looked at, selected and scaled. With all atoms it does what the LoRA does.",
            ["lora", "convert lora", "import lora", "look inside a lora", "lycoris", "locon", "decompose"],
            inputs=[
                io.Model.Input("model", tooltip="The model that the LoRA is for: it says where each part of the LoRA belongs. It is not changed."),
                io.Combo.Input("lora", display_name="LoRA", options=choices(), tooltip="A file below models/loras, or the one that comes with the Demo Model."),
                io.Conditioning.Input("positive", optional=True, tooltip="A prompt for the LoRA: its atoms are then ordered by what they do for it. Without one, by size."),
                io.Latent.Input("latent_image", optional=True, display_name="latent", tooltip="Size of the picture that the prompt is tried on; needed with a prompt."),
                io.Int.Input(
                    "rank", default=64, min=1, max=1024,
                    tooltip="Atoms per layer for kinds that are no plain LoRA (LoHa, LoKr, DoRA). Fewer leave something out; the text says how much.",
                ),
                io.Boolean.Input("allow_part", display_name="allow part", default=False, tooltip="Go on though parts of the LoRA have no place in this model; they are left aside."),
            ],
            outputs=[
                SparseDictSocket.Output("result", display_name="sparse dict"),
                io.String.Output("text", display_name="text", tooltip="What became of the LoRA: its kinds, its atoms, what is not in the dictionary."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, lora: str | None = None) -> bool | str:
        return True if lora is None or path_of(lora) is not None else missing(lora)

    @classmethod
    def fingerprint_inputs(cls, lora: str | None = None, **rest: Any) -> str:
        path = None if lora is None else path_of(lora)
        if path is None:
            return f"{lora}: linked or missing"
        status = os.stat(path)
        return f"{path}: {status.st_size} bytes, {status.st_mtime_ns}"

    @classmethod
    def execute(cls, model: Any, lora: str, rank: int, allow_part: bool, positive: Any = None, latent_image: dict | None = None) -> io.NodeOutput:
        from ..comfyui_host.lora import import_lora

        path = path_of(lora)
        if path is None:
            raise FileFormatError(missing(lora))
        if positive is not None and latent_image is None:
            raise SparseDictError("a prompt is connected and no latent: connect one of the size that you make pictures of.")
        adapter, report = import_lora(path, model, rank, allow_part)
        if positive is not None:
            adapter = ordered(model, adapter, positive, latent_image)
        told = {"text": (report.text,), UI: [{**table_note(UI, adapter, has_moments(adapter)), "lora": lora, "name": path.stem}]}
        return io.NodeOutput(SparseDict(adapter, path.stem), report.text, ui=told)


def ordered(model: Any, adapter: Any, positive: Any, latent: Any) -> Any:
    """The dictionary with the importance that its atoms have for a prompt."""
    import nodes as host_nodes

    from ..comfyui_host.injection import apply_adapter
    from ..comfyui_host.probe import Probe

    probe = Probe(apply_adapter(model, adapter), -1)
    host_nodes.common_ksampler(probe.patcher, 0, STEPS, 1.0, "euler", "simple", positive, positive, latent)
    return probe.with_importance()


def choices() -> list[str]:
    """The host's LoRAs, and those that come with the pack."""
    return [*(BUILT_IN + path.stem for path in sorted(DEMO.glob("*.safetensors"))), *folder_paths.get_filename_list(FOLDER)]


def missing(name: str) -> str:
    return f"{name!r} is not in models/loras; put it there and press R, or choose another LoRA."


def path_of(name: str) -> Path | None:
    """Where the file is; None if it is not there."""
    if name.startswith(BUILT_IN):
        path = DEMO / f"{Path(name.removeprefix(BUILT_IN)).name}.safetensors"
        return path if path.exists() else None
    found = folder_paths.get_full_path(FOLDER, name)
    return None if found is None else Path(found)
