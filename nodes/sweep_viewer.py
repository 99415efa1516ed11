"""Sweep Viewer: the pictures of a sweep in one place, with a slider; the browser asks routes.py for the animation."""

from __future__ import annotations

import uuid
from typing import Any

import torch
from comfy_api.latest import io, ui

from ..sparsedict_core.errors import DataError
from .schema import schema

UI = "sparsedict_sweep"  # not "images": the host would draw these itself, below the viewer
NAME = "sparsedict_sweep"  # what the files' names begin with; routes.py serves no others


class SweepViewer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "SparseDictSweepViewer",
            "Sweep Viewer",
            "Shows the pictures of an Atom Sweep one in the place of the other, with a slider to move through them, and saves them as an animated GIF.",
            ["gif", "animation", "slider", "compare", "flip through"],
            inputs=[
                io.Image.Input("images", tooltip="One picture for each step, from few atoms to many. Pictures of one batch of a step stand side by side."),
                io.String.Input("labels", optional=True, force_input=True, tooltip="What to write under each picture: the labels of Atom Sweep."),
            ],
            is_input_list=True,
            is_output_node=True,
        )

    @classmethod
    def execute(cls, images: list[torch.Tensor], labels: list[str] | None = None) -> io.NodeOutput:
        pictures = steps(images)
        if labels and len(labels) != len(pictures):
            raise DataError(f"there are {len(pictures)} pictures but {len(labels)} labels; connect both from the same Atom Sweep.")
        # The host counts from 1 again after a restart, and a browser would show the pictures that it has kept under these names.
        name = f"{NAME}_{uuid.uuid4().hex}"
        shown = []
        for number, picture in enumerate(pictures):
            (saved,) = ui.ImageSaveHelper.save_images(picture[None], name, io.FolderType.temp, cls, compress_level=1)
            shown.append({**saved, "label": labels[number] if labels else ""})
        return io.NodeOutput(ui={UI: shown})


def steps(images: list[Any]) -> list[Any]:
    """IMAGEs (B, H, W, C) → one (H, W, 3) a step: a list's entries, or the rows of a single batch."""
    if len(images) == 1:
        return [row[..., :3] for row in images[0]]
    return [torch.cat(list(image[..., :3]), dim=1) for image in images]
