"""Inspect Sparse Dict: what is in it, as a picture and in words."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..host_shared.describe import as_text, kept
from .schema import image_tensor, schema, stacked
from .socket import SparseDict, SparseDictSocket


class InspectSparseDict(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "SparseDictInspect",
            "Inspect Sparse Dict",
            "Shows layers × atoms by importance, what the strongest atoms carry, and what was trained. Atoms that are not selected fade.",
            ["show", "importance", "info", "atoms", "analyze"],
            inputs=[
                SparseDictSocket.Input("sparse_dict", tooltip="What to look at."),
                io.Int.Input("strongest", default=12, min=0, max=1000, tooltip="How many of the strongest atoms are listed."),
            ],
            outputs=[
                io.Image.Output("image", display_name="image"),
                io.String.Output("text", display_name="text", tooltip="Sites, strongest atoms, base model and training."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, sparse_dict: SparseDict, strongest: int) -> io.NodeOutput:
        from ..pictures import cumulative_curve, importance_map

        adapter = sparse_dict.adapter
        picture = stacked([importance_map(adapter, kept(adapter, sparse_dict.gains), for_node=True), cumulative_curve(adapter, for_node=True)])
        text = as_text(adapter, sparse_dict.gains, sparse_dict.name, strongest)
        return io.NodeOutput(image_tensor(picture), text, ui=ui.PreviewText(text))
