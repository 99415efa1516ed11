"""A node's inputs as the host's /object_info describes them: which are widgets, what they begin with, what they refuse."""

from __future__ import annotations

from typing import Any

WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


def inputs_of(info: dict[str, Any]) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Name → (type, options), in the order in which the front end makes them."""
    return {name: (spec[0], spec[1] if len(spec) > 1 else {}) for kind in ("required", "optional") for name, spec in info["input"].get(kind, {}).items()}


def is_widget(kind: Any, options: dict[str, Any]) -> bool:
    return (isinstance(kind, list) or kind in WIDGETS) and not options.get("forceInput")


def widgets_of(info: dict[str, Any]) -> dict[str, tuple[Any, dict[str, Any]]]:
    return {name: spec for name, spec in inputs_of(info).items() if is_widget(*spec)}


def has_seed_control(name: str, options: dict[str, Any]) -> bool:
    """Whether the front end puts a "control after generate" behind the widget; its value is one more in `widgets_values`."""
    return bool(options.get("control_after_generate", name in ("seed", "noise_seed")))


def default_of(kind: Any, options: dict[str, Any]) -> Any:
    if "default" in options:
        return options["default"]
    choices = kind if isinstance(kind, list) else options.get("options")
    if choices:
        return choices[0]
    return {"INT": 0, "FLOAT": 0.0, "BOOLEAN": False}.get(str(kind), "")


def problem(value: Any, kind: Any, options: dict[str, Any]) -> str | None:
    """What the host would say about a widget's value; None if nothing."""
    if isinstance(kind, list) or kind == "COMBO":
        choices = kind if isinstance(kind, list) else options.get("options", [])
        return None if value in choices else f"{value!r} is none of {choices}"
    wanted = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool}[kind]
    if not isinstance(value, wanted) or (kind in ("INT", "FLOAT") and isinstance(value, bool)):
        return f"{value!r} is no {kind}"
    if kind in ("INT", "FLOAT") and not options.get("min", value) <= value <= options.get("max", value):
        return f"{value!r} is not from {options.get('min')} to {options.get('max')}"
    return None
