"""Settings of a run in a .toml file: read for a run that is to be like another, written beside each adapter."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
import typing
from pathlib import Path
from typing import Any

from ..sparsedict_core.atomic_write import write_atomically
from ..sparsedict_core.errors import TrainingError
from ..sparsedict_core.regular_file import read_regular
from .checkpoint import begun_with
from .config import TrainConfig

#: What belongs to one run alone, or is known from where the file lies.
OF_ONE_RUN = ("images", "out", "overwrite", "resume")
SUFFIX = ".run.toml"


def read_settings(path: Path | str) -> dict[str, Any]:
    """Settings by name, for `TrainConfig(**…)`. Raises TrainingError naming the file and what is wrong in it."""
    try:
        import tomllib
    except ModuleNotFoundError as error:
        raise TrainingError(f"{path} is TOML, which Python reads from 3.11 on; use a newer Python, or give the settings as options.") from error
    try:
        values = tomllib.loads(read_regular(Path(path)).decode())
    except FileNotFoundError as error:
        raise TrainingError(f"{path} does not exist; check its path.") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise TrainingError(f"{path} cannot be read as TOML ({reason}); correct it, or give another file.") from error
    hints = typing.get_type_hints(TrainConfig)
    for name, value in values.items():
        if name not in hints or name in OF_ONE_RUN:
            near = difflib.get_close_matches(name, hints, n=1)
            advice = f"did you mean {near[0]}?" if near and name not in OF_ONE_RUN else "it cannot be set there." if name in hints else "--show-config lists all."
            raise TrainingError(f"{path} has a setting {name!r:.60} that a run does not take from it; {advice}")
        if not fits(value, hints[name]):
            raise TrainingError(f"{path}: {name} is {value!r:.60}, which is of another kind than it should be; --show-config shows the default.")
    return values


def settings_to_go_on(out: Path) -> dict[str, Any]:
    """What a run that goes on with the one at `out` takes over of its settings; nothing without a checkpoint. Raises CheckpointError."""
    names = {field.name for field in dataclasses.fields(TrainConfig)}.difference(OF_ONE_RUN)
    return {name: value for name, value in begun_with(out).items() if name in names}


def fits(value: Any, hint: Any) -> bool:
    """Whether a value from TOML, which has no None and no tuples, is of the kind that a setting is annotated with."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is tuple:
        return isinstance(value, list) and len(value) == len(inner) and all(map(fits, value, inner))
    if origin is list:
        return isinstance(value, list) and all(fits(one, inner[0]) for one in value)
    if hint in (int, float):
        return isinstance(value, (int, float) if hint is float else int) and not isinstance(value, bool)
    return isinstance(value, origin or hint)


def write_settings(config: TrainConfig) -> Path:
    """Every setting of the run into a file beside `config.out`; unset ones are left out, as TOML has no word for them."""
    path = Path(config.out).with_suffix(SUFFIX)
    lines = [f"{name} = {toml(value)}" for name, value in config.to_dict().items() if name not in OF_ONE_RUN and value is not None]
    text = "\n".join(["# sparsedict train FOLDER --config THIS-FILE --out FILE", *lines, ""])
    write_atomically(path, text.encode(errors="replace"))
    return path


def toml(value: Any) -> str:
    """A plain value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {toml(one)}" for name, one in value.items()) + "}"
    return str(value)
