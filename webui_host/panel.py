"""The panel below the prompt, for Gradio 3 and 4: a place for webui_host/prompt_panel.js, and the script's argument for the API."""

from __future__ import annotations

from typing import Any

from ..sparsedict_core.errors import TagError
from ..sparsedict_core.prompt_tags import find_tags
from .network import MISTAKE


def build(tab: str) -> list[Any]:
    """`tab` is "txt2img" or "img2img". Returns the components whose values the host hands to `add_tags`."""
    import gradio as gr

    with gr.Accordion("SparseDict", open=False, elem_id=f"{tab}_sparsedict_panel"):
        gr.HTML(f'<div class="sparsedict-panel" data-tab="{tab}"></div>')
        return [gr.Textbox(value="", visible=False, label="SparseDict tags")]


def add_tags(p: Any, tags: Any = "") -> None:
    """Tags given as the script's argument, as over the API, stand at the end of every prompt. What is no tag is refused when the picture
    begins, as a mistake in a prompt is: what a script raises the host only prints."""
    tags = tags or ""
    try:
        rest, found = find_tags(tags) if isinstance(tags, str) else (repr(tags), [])
        if rest.strip():
            raise TagError(f"{rest.strip()!r:.200} is no tag")
    except TagError as error:
        setattr(p, MISTAKE, f"the script's argument: {error}; give it SparseDict tags such as <sparsedict:name:0.8>.")
        return
    if not found:
        return
    tags = tags.strip()
    for name in ("prompt", "hr_prompt"):
        given = getattr(p, name, None)
        if isinstance(given, list):
            setattr(p, name, [f"{each} {tags}" for each in given])
        elif given or (given is not None and name == "prompt"):
            setattr(p, name, f"{given} {tags}")
