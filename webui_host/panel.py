"""The panel below the prompt: choose an adapter, its strength and its share of atoms, and write the tag. Gradio 3 and 4."""

from __future__ import annotations

from typing import Any

from . import files

_WRITE = "(prompt, name, strength, share) => [sparsedictWriteTag(prompt, name, strength, share)]"


def build(prompt: Any) -> None:
    """`prompt` is the host's own text field; None where the panel cannot reach it yet."""
    import gradio as gr

    with gr.Accordion("SparseDict", open=False):
        with gr.Row():
            name = gr.Dropdown(label="Adapter", choices=list(files.names(files.default_folder())), value=None)
            strength = gr.Slider(label="Strength", minimum=-1.0, maximum=2.0, step=0.05, value=1.0)
            share = gr.Slider(label="Share of atoms", minimum=0.0, maximum=1.0, step=0.01, value=1.0)
        with gr.Row():
            refresh = gr.Button("Refresh")
            write = gr.Button("Write the tag")
        refresh.click(fn=lambda: gr.update(choices=list(files.names(files.default_folder()))), inputs=[], outputs=[name])
        if prompt is not None:
            # Gradio 4 calls the argument `js`.
            script = {"js" if int(gr.__version__.split(".")[0]) >= 4 else "_js": _WRITE}
            write.click(fn=None, inputs=[prompt, name, strength, share], outputs=[prompt], **script)
