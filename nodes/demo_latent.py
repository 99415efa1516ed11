"""Demo Latent: the empty latent that the demo model wants."""

from __future__ import annotations

from comfy_api.latest import io

from .schema import schema


class DemoLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SparseDictDemoLatent",
            display_name="Demo Latent",
            description="Empty latents for the Demo Model: pictures of 96×96 pixels. The stock empty latents reckon with 8 pixels per cell; this model has 6.",
            aliases=["empty latent", "96x96"],
            inputs=[io.Int.Input("batch_size", default=1, min=1, max=256, tooltip="How many pictures at once.")],
            outputs=[io.Latent.Output("latent", tooltip="(batch_size, 16, 16, 16), all zeros.")],
        )

    @classmethod
    def execute(cls, batch_size: int) -> io.NodeOutput:
        from ..comfyui_host.demo_base import empty_latent

        return io.NodeOutput(empty_latent(batch_size))
