"""The panel below the prompt, for Gradio 3 and 4: a place for webui_host/prompt_panel.js, and the script's argument for the API."""

from __future__ import annotations

from typing import Any

from ..sparsedict_core.errors import TagError
from ..sparsedict_core.prompt_tags import find_tags


def build(tab: str) -> list[Any]:
    """`tab` is "txt2img" or "img2img". Returns the components whose values the host hands to `add_tags`."""
    import gradio as gr

    with gr.Accordion("SparseDict", open=False, elem_id=f"{tab}_sparsedict_panel"):
        gr.HTML(f'<div class="sparsedict-panel" data-tab="{tab}"></div>')
        return [gr.Textbox(value="", visible=False, label="SparseDict tags")]


def add_tags(p: Any, tags: str = "") -> None:
    """Tags given as the script's argument, as over the API, stand at the end of every prompt. Raises TagError for what is no tag."""
    tags = (tags or "").strip()
    if not tags:
        return
    rest, found = find_tags(tags)
    if rest.strip() or not found:
        raise TagError(f"{tags!r:.200} are not tags; give the script SparseDict tags such as <sparsedict:name:0.8>.")
    for name in ("prompt", "hr_prompt"):
        given = getattr(p, name, None)
        if isinstance(given, list):
            setattr(p, name, [f"{each} {tags}" for each in given])
        elif given or (given is not None and name == "prompt"):
            setattr(p, name, f"{given} {tags}")
