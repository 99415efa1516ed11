"""The ComfyUI nodes: widgets in, a call into the core or the trainer, outputs. No numerics here, and no heavy import at start."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

# A node is one class in one file, and one line here; `module:class`.
NODES = [
    "loader:SparseDictLoader",
    "load:LoadSparseDict",
    "apply:ApplySparseDict",
    "select_atoms:SelectAtoms",
    "scale:ScaleAtoms",
    "compose:ComposeSparseDicts",
    "inspect:InspectSparseDict",
    "probe:ProbeAtoms",
    "sweep:AtomSweep",
    "sweep_viewer:SweepViewer",
    "compare:Compare",
    "train:TrainSparseDict",
    "save:SaveSparseDict",
    "from_lora:SparseDictFromLora",
    "save_lora:SaveAsLora",
    "load_image_set:LoadImageSet",
    "demo_model:DemoModel",
    "demo_latent:DemoLatent",
]


class SparseDictExtension(ComfyExtension):
    """All nodes of the pack."""

    async def on_load(self) -> None:
        from .renames import register

        await register()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Imports the node files; none of them imports diffusers or matplotlib."""
        from importlib import import_module

        found = []
        for entry in NODES:
            module, name = entry.split(":")
            found.append(getattr(import_module(f".{module}", __package__), name))
        import_module(".routes", __package__).register()
        return found
