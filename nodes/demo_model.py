"""Demo Model: the embedded base behind the host's stock nodes, so that every example runs without a download."""

from __future__ import annotations

from comfy_api.latest import io

from .schema import schema


class DemoModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SparseDictDemoModel",
            display_name="Demo Model",
            description=(
                "The small image model that comes with SparseDict: 96×96 pictures of drawings on grounds, in a second on a CPU, nothing to download. "
                "It knows 150 words, such as “a large flat fox on the left on a night background”. Use Demo Latent, KSampler with euler and simple, "
                "16 steps, cfg 3.5."
            ),
            aliases=["sparsedict base", "embedded model", "test model", "zorp"],
            inputs=[],
            outputs=[
                io.Model.Output("model", tooltip="An SD3-shaped transformer, small."),
                io.Clip.Output("clip", tooltip="Its words. A text with a word that it does not know is refused, with the list of those it knows."),
                io.Vae.Output("vae", tooltip="Its codec: 6 pixels per latent cell, 16 channels."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        from ..comfyui_host import demo_base

        return io.NodeOutput(demo_base.load_model(), demo_base.load_clip(), demo_base.load_vae())
