"""Compare: the base, all atoms and a selection in one place, from one noise, with dividers to drag between them."""

from __future__ import annotations

import uuid

import torch
from comfy_api.latest import io, ui

from ..sparsedict_core.errors import DataError
from .schema import schema

UI = "sparsedict_compare"  # not "images": the host would draw these itself, below the panel


class Compare(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "SparseDictCompare",
            "Compare",
            "Shows two or three pictures of the same noise in one place, with dividers to drag between them: the base, all atoms, a selection.",
            ["before after", "slider", "side by side", "difference", "image compare"],
            inputs=[
                io.Image.Input("base", tooltip="The picture of the bare base. Of several, the first is shown."),
                io.Image.Input("all_atoms", optional=True, tooltip="The picture with the whole dictionary, from the same noise."),
                io.Image.Input("selection", optional=True, tooltip="The picture with the atoms that Select Atoms keeps, from the same noise."),
            ],
            is_input_list=True,  # else the node would run once for each picture of a list, and show all of them
            is_output_node=True,
        )

    @classmethod
    def execute(cls, base: list[torch.Tensor], all_atoms: list[torch.Tensor] | None = None, selection: list[torch.Tensor] | None = None) -> io.NodeOutput:
        pictures = {"base": base, "all atoms": all_atoms, "selection": selection}
        given = {label: images[0][:1, ..., :3] for label, images in pictures.items() if images}
        if len(given) < 2:
            raise DataError("there is nothing to compare the base with; connect all atoms, a selection, or both.")
        sizes = {label: f"{picture.shape[2]}×{picture.shape[1]}" for label, picture in given.items()}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{label} {size}" for label, size in sizes.items())
            raise DataError(f"the pictures have other sizes ({told}); compare what was made from one noise.")
        name = f"{UI}_{uuid.uuid4().hex}"  # a browser keeps what it has shown under a name
        shown = []
        for label, picture in given.items():
            (saved,) = ui.ImageSaveHelper.save_images(picture, name, io.FolderType.temp, cls, compress_level=1)
            shown.append({**saved, "label": label})
        return io.NodeOutput(ui={UI: shown})
