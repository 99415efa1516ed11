"""Scale Atoms: louder, quieter or turned round, by address."""

from __future__ import annotations

from comfy_api.latest import io

from ..sparsedict_core.errors import AddressError
from ..sparsedict_core.gains import parse_gains, resolve_gains
from .schema import schema
from .socket import SparseDict, SparseDictSocket


class ScaleAtoms(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "SparseDictScaleAtoms",
            "Scale Atoms",
            "Sets the gains of atoms, layers or streams of a sparse dictionary: 1 leaves an atom as it is, 0 removes it, below 0 turns it round.",
            ["gain", "atom weights", "block weights", "mute"],
            inputs=[
                SparseDictSocket.Input("sparse_dict", tooltip="Gains that are set already are multiplied."),
                io.String.Input(
                    "gains", default="", multiline=True,
                    tooltip="L17[137]=1.5, L3=0, L4-L9.text=0.5, cat:L2=2; separated by commas. Where two name the same atom, the last one counts.",
                ),
            ],
            outputs=[SparseDictSocket.Output("result", display_name="sparse dict")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, gains: str | None = None) -> bool | str:
        try:
            parse_gains(gains or "")
        except AddressError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, sparse_dict: SparseDict, gains: str) -> io.NodeOutput:
        return io.NodeOutput(sparse_dict.with_gains(resolve_gains(sparse_dict.adapter, gains)))
