"""The tab that trains, for Gradio 3 and 4; how the run goes is shown by ComfyUI's monitor (webui_host/training_tab.js)."""

from __future__ import annotations

import html
from typing import Any

from ..host_shared.run_settings import EFFORTS
from ..sparsedict_core.errors import SparseDictError
from ..trainer.presets import PRESETS
from . import training


def begin(*values: Any) -> str:
    try:
        return html.escape(training.start(*values))
    except SparseDictError as error:
        return f"<b>Not started:</b> {html.escape(str(error))}"


def build() -> list[tuple[Any, str, str]]:
    """For the host's `on_ui_tabs`."""
    import gradio as gr

    with gr.Blocks(analytics_enabled=False) as tab, gr.Row():
        with gr.Column():
            images = gr.Textbox(label="Folder of pictures", placeholder="4 to 20 pictures; a .txt beside one is its caption", elem_id="sparsedict_images")
            with gr.Row():
                name = gr.Textbox(label="Name of the file", value="concept", elem_id="sparsedict_name")
                word = gr.Textbox(label="Word", placeholder="zorp", elem_id="sparsedict_word")
            caption = gr.Textbox(label="Caption of pictures without one", placeholder="a photo of {word}")
            with gr.Row():
                preset = gr.Radio(list(PRESETS), value="concept", label="Preset")
                effort = gr.Radio(list(EFFORTS), value="balanced", label="Effort")
            with gr.Row():
                steps = gr.Number(label="Steps (0 = by the effort)", value=0, precision=0, elem_id="sparsedict_steps")
                resolution = gr.Number(label="Resolution (0 = the model's own)", value=0, precision=0, elem_id="sparsedict_resolution")
                seed = gr.Number(label="Seed", value=0, precision=0)
            previews = gr.Textbox(label="Preview prompts, one a line", lines=2)
            resume = gr.Checkbox(label="Resume the stopped run of this name", value=False)
            with gr.Row():
                begin_button = gr.Button("Train", variant="primary", elem_id="sparsedict_train")
                stop_button = gr.Button("Stop and keep")
            said = gr.HTML("Trains on the loaded checkpoint (SD1.5, SD2, SDXL), which stays as it is. Pictures wait until the training is over.")
        with gr.Column():
            gr.HTML('<div class="sparsedict-monitor" style="height:460px"></div>')
        begin_button.click(fn=begin, inputs=[images, name, word, caption, preset, effort, steps, resolution, seed, previews, resume], outputs=[said])
        stop_button.click(fn=training.stop, inputs=[], outputs=[said])
    return [(tab, "SparseDict", "sparsedict_training")]
