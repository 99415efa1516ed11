"""What the pack hands to the host, and when. The host clears its registries at each reload, so all is registered by callbacks."""

from __future__ import annotations

from typing import Any

from . import api, axes, training_tab
from .cards import make_page
from .network import APPLIED, OPTION, STOP, WITHOUT, make_network, on_cfg_denoiser
from .panel import add_tags
from .panel import build as build_panel

__all__ = ["add_tags", "build_panel", "register"]


def register(script_callbacks: Any, shared: Any) -> None:
    """Called by scripts/sparsedict_webui.py at each load of the host's scripts."""
    script_callbacks.on_before_ui(before_ui)
    script_callbacks.on_app_started(lambda demo, app: api.register(app))
    script_callbacks.on_ui_tabs(training_tab.build)
    script_callbacks.on_cfg_denoiser(on_cfg_denoiser)
    script_callbacks.on_model_loaded(lambda model: APPLIED.clear())
    script_callbacks.on_script_unloaded(APPLIED.clear)
    add_options(shared)


def before_ui() -> None:
    from modules import extra_networks, ui_extra_networks

    extra_networks.register_extra_network(make_network())
    ui_extra_networks.register_page(make_page())
    axes.register()


def add_options(shared: Any) -> None:
    import gradio as gr

    text = "When a <sparsedict:…> tag cannot be followed"
    option = shared.OptionInfo(STOP, text, gr.Radio, {"choices": [STOP, WITHOUT]})
    shared.options_templates.update(shared.options_section(("sparsedict", "SparseDict"), {OPTION: option}))
