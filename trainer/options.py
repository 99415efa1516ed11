"""How a setting of a training run is described: once, for `TrainConfig`, the command line, the ComfyUI node and its help page.

Imports no torch, and so nothing of the core before a value is looked at: a program can show its help at once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: (lowest, highest, whole), as in `Bounds`.
Range = tuple[float, float, bool]
ONE_OR_MORE, ANY_COUNT = (1, math.inf, True), (0, math.inf, True)
SHARE, POSITIVE = (0, 1, False), (0, math.inf, False)


@dataclass(frozen=True)
class Widget:
    """How the ComfyUI node shows a setting."""

    place: int  # saved workflows know a widget by its place: a new one comes last
    default: Any = 0
    least: float = 0
    most: float = 0
    note: str = ""  # what the node says besides: what its default stands for
    step: float | None = None
    choices: tuple[str, ...] = ()  # instead of the setting's own
    unset: Any = None  # the value that leaves the setting to preset, effort and model


@dataclass(frozen=True)
class Option:
    """One setting. Its kind follows from what is given: bounds for numbers, choices for names; else a switch, a path or text."""

    name: str
    default: Any
    help: str
    flags: tuple[str, ...]  # of `sparsedict train`; none: it is not shown there
    bounds: Range | None
    choices: tuple[str, ...]
    path: bool
    optional: bool  # may be None though its default is not
    widget: Widget | None

    def wrong(self, value: Any) -> str | None:
        """What is wrong with a value, as a sentence, or None. Unset values are fine where that is the default, or `optional`."""
        from ..sparsedict_core.bounds import Bounds

        if value is None and (self.default is None or self.optional):
            return None
        if self.choices and value not in self.choices:
            return f"{self.name} is {value!r:.60}; give {' or '.join(self.choices)}."
        if self.bounds is not None and not Bounds(*self.bounds).hold(value):
            return f"{self.name} is {value!r:.60}; give {range_text(self.bounds)}."
        return None


def range_text(bounds: Range) -> str:
    low, high, whole = bounds
    if bounds == SHARE:
        return "a share from 0 to 1"
    kind = "whole number" if whole else "number"
    return f"a {kind} of {low:g} or more" if math.isinf(high) else f"a {kind} from {low:g} to {high:g}"


def option(
    default: Any, help: str, *flags: str, bounds: Range | None = None, choices: tuple[str, ...] = (), path: bool = False, optional: bool = False,
    widget: Widget | None = None,
) -> Any:  # fmt: skip
    """A dataclass field with its description; a function makes the default anew each time."""
    kind = {"default_factory": default} if isinstance(default, type) else {"default": default}
    described = {"help": help, "flags": flags, "bounds": bounds, "choices": choices, "path": path, "optional": optional, "widget": widget}
    return field(**kind, metadata=described)


def options_of(settings: type) -> dict[str, Option]:
    """The options of a dataclass of settings, by name and in its order."""
    found = {}
    for one in dataclasses.fields(settings):
        default = one.default_factory() if one.default_factory is not dataclasses.MISSING else one.default
        found[one.name] = Option(one.name, default, **one.metadata)
    return found


def command_line(settings: type) -> Callable[[Callable], Callable]:
    """All settings that have flags, as click options. What is not given stays None: the preset decides, else the default."""
    import click

    def decorate(function: Callable) -> Callable:
        for one in reversed(options_of(settings).values()):
            if not one.flags:
                continue
            more: dict[str, Any] = {"default": None, "help": one.help}
            if isinstance(one.default, bool):
                more["is_flag"] = True
            elif isinstance(one.default, list):
                more["multiple"] = True
            elif one.path:
                more["type"] = click.Path(path_type=Path, readable=False)
            elif one.choices:
                more["type"] = click.Choice(one.choices)
            elif one.bounds is not None:
                more["type"] = int if one.bounds[2] else float
            function = click.option(*one.flags, one.name, **more)(function)
        return function

    return decorate


def widgets(settings: type) -> list[Option]:
    """The settings that the node shows, in the order of its widgets."""
    shown = [one for one in options_of(settings).values() if one.widget is not None]
    return sorted(shown, key=lambda one: one.widget.place if one.widget else 0)


def help_table(settings: type) -> str:
    """The settings of the node, in Markdown, for its help page."""
    rows = [f"| {one.name.replace('_', ' ')} | {one.help}{' ' + one.widget.note if one.widget and one.widget.note else ''} |" for one in widgets(settings)]
    return "\n".join(["| setting | what it does |", "|---|---|", *rows]) + "\n"
