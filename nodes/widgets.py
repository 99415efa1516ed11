"""Widgets that several nodes have."""

from __future__ import annotations

import inspect
from typing import Any

from comfy_api.latest import io

from ..sparsedict_core.selection import ORDERS


def strength_input(name: str = "strength") -> io.Float.Input:
    return io.Float.Input(
        name, default=1.0, min=-4.0, max=4.0, step=0.05,
        tooltip="How much of the change is added: 0 is the base model, 1 what was trained, below 0 the opposite.",
    )  # fmt: skip


def clip_input() -> io.Clip.Input:
    return io.Clip.Input("clip", optional=True, tooltip="For a dictionary that was a LoRA with a part for the text encoders: they get it by the host's own LoRA loader.")


def clip_output() -> io.Clip.Output:
    return io.Clip.Output("adapted_clip", display_name="clip", tooltip="The CLIP with that part, at the same strength; as it came where there is none.")


def folded(kind: Any) -> dict[str, bool]:
    """Newer hosts fold such inputs away, and show them on demand and in the sidebar."""
    return {"advanced": True} if "advanced" in inspect.signature(kind.Input.__init__).parameters else {}


def order_input(**more: Any) -> io.Combo.Input:
    return io.Combo.Input(
        "order", options=list(ORDERS), default="importance", **more,
        tooltip="Which atoms come first: by importance, for editing; greedy, for the smallest file of the same effect (needs the moments in the file).",
    )  # fmt: skip


EXISTING = ("number", "overwrite", "refuse")


def existing_input() -> io.Combo.Input:
    return io.Combo.Input(
        "existing", options=list(EXISTING), default="number",
        tooltip="If the file exists: write a new one with a number behind its name, overwrite it, or refuse.",
    )  # fmt: skip
