"""Probe Atoms: which atoms a prompt sets off, at which steps, and where in the picture."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..host_shared.describe import table
from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.addresses import format_address, format_masks
from ..sparsedict_core.errors import SparseDictError
from ..sparsedict_core.fired import FiredAtom
from ..sparsedict_core.gains import alive
from ..sparsedict_core.token_grid import thumbnail
from .schema import image_tensor, schema
from .socket import SparseDict, SparseDictSocket
from .table_note import table_note

UI = "sparsedict_probe"
LEGEND = "norm: of what the atom adds; share: of the output there; fires: at that share of the tokens; then the norm by part of the sampling."
SHOWN = 256  # atoms whose map a Select Atoms after this node can show


class ProbeAtoms(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        import comfy.samplers

        return schema(
            "SparseDictProbe",
            "Probe Atoms",
            "Samples a picture and watches the atoms of the sparse dictionary on the model: which fire for this prompt, when, and where.",
            ["activation", "heatmap", "attention map", "which atoms", "importance"],
            inputs=[
                io.Model.Input("model", tooltip="A model with a sparse dictionary applied to it."),
                io.Conditioning.Input("positive", tooltip="The prompt in question; only its rows are watched."),
                io.Conditioning.Input("negative", optional=True, tooltip="Needed where cfg is not 1."),
                io.Latent.Input("latent_image", display_name="latent", tooltip="Size of the picture, or the picture to start from."),
                io.Vae.Input("vae", optional=True, tooltip="Decodes the picture behind the maps; without it a rough preview is shown."),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip="Of the noise."),
                io.Int.Input("steps", default=20, min=1, max=10_000, tooltip="Sampling steps."),
                io.Float.Input("cfg", default=7.0, min=0.0, max=100.0, step=0.1, tooltip="Guidance; 1 needs no negative."),
                io.Combo.Input("sampler_name", display_name="sampler", options=comfy.samplers.KSampler.SAMPLERS, tooltip="As in KSampler."),
                io.Combo.Input("scheduler", options=comfy.samplers.KSampler.SCHEDULERS, tooltip="As in KSampler."),
                io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="As in KSampler."),
                io.Int.Input("top", default=11, min=1, max=100, tooltip="How many of the strongest atoms are listed and mapped."),
                io.Int.Input("which", default=-1, min=-100, max=100, tooltip="Which dictionary, if several are applied: 1 is the first, -1 the last."),
            ],
            outputs=[
                SparseDictSocket.Output("result", display_name="sparse dict", tooltip="With the importance of its atoms for this prompt."),
                io.Image.Output("image", display_name="image", tooltip="The picture, and where in it the strongest atoms act."),
                io.String.Output("text", display_name="text", tooltip="The strongest atoms: what they add, how often they fire, at which part of the sampling."),
            ],
        )

    @classmethod
    def execute(
        cls, model: Any, positive: Any, latent_image: dict, seed: int, steps: int, cfg: float, sampler_name: str, scheduler: str,
        denoise: float, top: int, which: int, negative: Any = None, vae: Any = None,
    ) -> io.NodeOutput:  # fmt: skip
        import nodes as host_nodes

        from ..comfyui_host.injection import applied_to
        from ..comfyui_host.probe import Probe, picture
        from ..pictures import coefficient_map

        every = applied_to(model)
        position = which - 1 if which > 0 else len(every) + which
        if not every:
            raise SparseDictError("no sparse dictionary is on this model; put Apply Sparse Dict before Probe Atoms.")
        if which == 0 or not 0 <= position < len(every):
            raise SparseDictError(f"`which` is {which}, but {len(every)} dictionaries are on this model; give 1 to {len(every)}, or -1 for the last.")
        if negative is None and cfg != 1:
            raise SparseDictError(f"cfg is {cfg:g} and there is no negative; connect one, or set cfg to 1.")
        probe = Probe(model, position)
        sampled = host_nodes.common_ksampler(
            probe.patcher, seed, steps, cfg, sampler_name, scheduler, positive, negative if negative is not None else positive, latent_image,
            denoise=denoise,
        )[0]["samples"]  # fmt: skip
        fired = probe.strongest(tuple(sampled.shape[2:]))
        atoms = fired[:top]
        mapped = [atom for atom in atoms if atom.map is not None]
        adapter, gains = every[position].adapter, every[position].gains
        labels = [f"{format_address(adapter, atom.key, atom.row)}\n{atom.norm:.3g}" for atom in mapped]
        image = coefficient_map(picture(model, sampled, vae), [atom.map for atom in mapped], labels, columns=4, side=128, for_node=True)
        rows = [
            [format_address(adapter, atom.key, atom.row), f"{atom.norm:.3g}", f"{atom.relative:.1%}", f"{atom.fires:.0%}", *(f"{x:.2g}" for x in atom.by_bucket)]
            for atom in atoms
        ]
        # Short heads and few digits: a row that wraps in the node cannot be read.
        text = f"{table(rows, ['atom', 'norm', 'share', 'fires', *probe.parts])}\n\n{LEGEND}"
        # The file's name, as without a probe in between: a Compose after this names its atoms by it.
        name = every[position].name or str(adapter.metadata.get("title") or "probed")
        value = SparseDict(probe.with_importance(), name, gains)
        return io.NodeOutput(value, image_tensor(image), text, ui={"text": [text], UI: [note(value.adapter, gains, fired)]})


def note(adapter: SparseAdapter, gains: Mapping[str, Tensor] | None, fired: Sequence[FiredAtom]) -> dict[str, str]:
    """Writes what Select Atoms shows after this node: the atoms with their importance and firing rate for the prompt, which of them the
    gains leave, and where the strongest are. Returns the file as the host names files."""
    maps = []
    for atom in [atom for atom in fired if atom.map is not None][:SHOWN]:
        grid = thumbnail(atom.map)
        data = base64.b64encode(grid.numpy().tobytes()).decode()
        maps.append({"address": format_address(adapter, atom.key, atom.row), "width": grid.shape[1], "height": grid.shape[0], "grid": data})
    return table_note(UI, adapter, left=None if gains is None else format_masks(adapter, alive(adapter, gains)), maps=maps)
