"""Atom Sweep: the slider as a list, for a grid of pictures."""

from __future__ import annotations

from comfy_api.latest import io

from ..host_shared.narrowing import share_selection
from ..sparsedict_core.selection import Selection
from .schema import schema
from .socket import SparseDict, SparseDictSocket
from .widgets import order_input

SPACINGS = ("importance", "atoms")


class AtomSweep(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "SparseDictAtomSweep",
            "Atom Sweep",
            "A list of selections from few atoms to many; what follows runs once for each. The selections are nested: a larger one has all atoms of a smaller.",
            ["grid", "slider", "xy plot", "atoms"],
            inputs=[
                SparseDictSocket.Input("sparse_dict", tooltip="What to select from."),
                io.Int.Input("count", display_name="steps", default=6, min=2, max=100, tooltip="How many selections, both ends included."),
                io.Float.Input("start", display_name="from share", default=0.0, min=0.0, max=1.0, step=0.01, tooltip="The first share. 0 is the bare base."),
                io.Float.Input("stop", display_name="to share", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="The last share. 1 is everything."),
                io.Combo.Input(
                    "spacing", options=list(SPACINGS), default="importance",
                    tooltip="importance: shares of the importance, so that each step changes about as much as the last; atoms: shares of the atoms.",
                ),
                order_input(),
            ],
            outputs=[
                SparseDictSocket.Output("sparse_dicts", display_name="sparse dicts", is_output_list=True),
                io.String.Output("labels", display_name="labels", is_output_list=True, tooltip="What each selection keeps, to write under its picture."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, sparse_dict: SparseDict, count: int, start: float, stop: float, spacing: str, order: str) -> io.NodeOutput:
        values, labels = [], []
        for step in range(count):
            share = min(1.0, max(0.0, start + (stop - start) * step / (count - 1)))
            selection = Selection(importance_share=share, order=order) if spacing == "importance" else share_selection(share, order=order)
            value, result = sparse_dict.narrowed(selection)
            values.append(value)
            labels.append(f"{share:.0%}: {result.kept} of {result.total} atoms")
        return io.NodeOutput(values, labels)
