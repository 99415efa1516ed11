"""Select Atoms: which atoms stay. The choice is in the widgets, so it travels with the workflow and keys the host's cache."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..host_shared.narrowing import share_selection
from ..sparsedict_core.addresses import format_masks, parse_addresses
from ..sparsedict_core.errors import AddressError
from ..sparsedict_core.gains import alive, bake
from ..sparsedict_core.prune import prune
from ..sparsedict_core.selection import Selection, describe
from .schema import schema
from .socket import SparseDict, SparseDictSocket
from .widgets import folded, order_input

MODES = ("share", "importance share", "top", "threshold", "addresses")


class SelectAtoms(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "SparseDictSelectAtoms",
            "Select Atoms",
            "Keeps some atoms of a sparse dictionary, by importance, number or address. Nothing is loaded or patched again when the choice changes.",
            ["prune", "sparsity", "top k", "atoms", "slider"],
            inputs=[
                SparseDictSocket.Input("sparse_dict", tooltip="What to select from; atoms that an earlier node left out stay out."),
                io.Combo.Input(
                    "mode", **folded(io.Combo), options=list(MODES), default="share",
                    tooltip="share: that part of the atoms; importance share: the fewest atoms that carry that part of the importance; "
                    "top: that many atoms; threshold: atoms of at least that importance; addresses: the atoms named in `atoms`.",
                ),
                io.Float.Input(
                    "share", **folded(io.Float), default=1.0, min=0.0, max=1.0, step=0.001, round=False, tooltip="For the modes share and importance share. 0 keeps none, 1 all."
                ),
                io.Int.Input("top", **folded(io.Int), default=64, min=0, max=1_000_000, tooltip="For the mode top: how many atoms stay."),
                io.Float.Input(
                    "threshold", **folded(io.Float), default=0.01, min=0.0, max=1e6, step=0.001,
                    tooltip="For the mode threshold: the least importance of an atom that stays (Inspect Sparse Dict shows them).",
                ),
                io.String.Input(
                    "atoms", **folded(io.String), default="", multiline=True,
                    tooltip="For the mode addresses: L17[137], L3[0-15,40], L4-L9, L17.text[5], cat:L17[137], separated by commas. Empty keeps none.",
                ),
                order_input(**folded(io.Combo)),
                io.Boolean.Input("per_site", **folded(io.Boolean), display_name="per site", default=False, tooltip="Take the share or number in every site, not over all together."),
                io.String.Input("layers", **folded(io.String), default="", tooltip="Consider the atoms of these layers only, all others go: L4-L9. Empty: all layers."),
                io.Boolean.Input("invert", **folded(io.Boolean), default=False, tooltip="Keep exactly the atoms that would have gone."),
                io.Boolean.Input(
                    "refit", **folded(io.Boolean), default=False,
                    tooltip="Change the atoms that stay so that they come as near to the whole as they can. Needs the moments in the file.",
                ),
            ],
            outputs=[
                SparseDictSocket.Output("result", display_name="sparse dict"),
                io.String.Output("addresses", display_name="addresses", tooltip="The addresses of the atoms that stay, as short as they can be written."),
                io.Int.Output("count", display_name="count", tooltip="How many atoms stay."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, atoms: str | None = None, layers: str | None = None) -> bool | str:
        try:
            for text in (atoms, layers):
                if text and text.strip():
                    parse_addresses(text)
        except AddressError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls, sparse_dict: SparseDict, mode: str, share: float, top: int, threshold: float, atoms: str, order: str, per_site: bool,
        layers: str, invert: bool, refit: bool,
    ) -> io.NodeOutput:  # fmt: skip
        how = {"order": order, "per_site": per_site, "layers": layers.strip() or None, "invert": invert}
        if mode == "share":
            selection = share_selection(share, **how)
        elif mode == "importance share":
            selection = Selection(importance_share=share, **how)
        elif mode == "top":
            selection = Selection(top=top, **how)
        elif mode == "threshold":
            selection = Selection(threshold=threshold, **how)
        elif atoms.strip():
            selection = Selection(atoms=atoms, **{**how, "order": "importance"})
        else:
            selection = Selection(top=0, **{**how, "order": "importance"})
        value, result = sparse_dict.narrowed(selection)
        kept = format_masks(sparse_dict.adapter, result.masks)
        if refit:
            whole = bake(sparse_dict.adapter, sparse_dict.gains)
            # The masks of what is still there.
            present = alive(sparse_dict.adapter, sparse_dict.gains)
            masks = {key: mask[present[key]] for key, mask in result.masks.items()}
            value = replace(sparse_dict, adapter=prune(whole, describe(whole, masks, order), refit=True), gains=None)
        return io.NodeOutput(value, kept, result.kept)
