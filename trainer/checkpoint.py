"""Checkpoints: everything that a run needs to go on bit for bit, in one safetensors file, written whole or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.atomic_write import write_atomically
from ..sparsedict_core.errors import TrainingError
from .revival import DeadAtoms


@dataclass
class RunState:
    """What changes from step to step, besides the adapter and the optimiser."""

    step: int  # steps done
    smoothed_loss: float | None
    log: list[dict[str, float]]


def folder_of(out: Path) -> Path:
    """Where the checkpoints of a run with this --out are."""
    return out.with_name(out.name.removesuffix(".safetensors") + ".checkpoints")


def newest(folder: Path) -> Path | None:
    """The checkpoint of the latest step, or None."""
    found = sorted(folder.glob("step-*.safetensors"))
    return found[-1] if found else None


def write(
    folder: Path,
    config: dict[str, Any],
    adapter: SparseAdapter,
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    dead: DeadAtoms,
    state: RunState,
    keep: int,
) -> Path:
    """Write a checkpoint and drop all but the newest `keep`; also those of later steps, which are of a run that this one overwrites."""
    tensors: dict[str, Tensor] = {f"adapter.{name}": value for name, value in adapter.state_dict().items()}
    scalars: dict[str, Any] = {}
    for index, values in optimiser.state_dict()["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{index}.{name}"] = value
            else:
                scalars[f"{index}.{name}"] = value
    tensors |= {f"idle.{key}": value for key, value in dead.idle.items()}
    tensors["generator"] = generator.get_state()
    metadata = {
        "format": "sparse_dict_checkpoint",
        "config": json.dumps(config),
        "state": json.dumps({"step": state.step, "smoothed_loss": state.smoothed_loss, "log": state.log}),
        "optimiser": json.dumps(scalars),
    }
    path = folder / f"step-{state.step:06d}.safetensors"
    write_atomically(path, to_bytes({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, metadata))
    found = sorted(folder.glob("step-*.safetensors"))
    own = found.index(path) + 1
    for old in [*found[own:], *found[:own][:-keep]]:
        old.unlink()
    return path


#: What a run starts from; the loop adds their hashes to the settings.
ORIGINS = {"images_hash": "training images or captions", "base_fingerprint": "base weights"}

#: Settings that may differ between a run and its continuation without changing its numbers.
_FREE = {"out", "overwrite", "resume", "preview_every", "preview_prompts", "checkpoint_every", "keep_checkpoints", "tensorboard", "moments", "cache", "images", "gradient_checkpointing"}


def read(
    path: Path, config: dict[str, Any], adapter: SparseAdapter, optimiser: torch.optim.Optimizer, generator: torch.Generator, dead: DeadAtoms
) -> RunState:
    """Put a checkpoint's state into the run's parts. Raises TrainingError if it is damaged or of another run's settings."""
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"the checkpoint {path} cannot be read ({error}); delete it to go on from the one before.") from error
    if metadata.get("format") != "sparse_dict_checkpoint":
        raise TrainingError(f"{path} is no checkpoint of a training run; --resume needs one from the same --out.")
    stored = json.loads(metadata["config"])
    plain = json.loads(json.dumps(config))
    for name, what in ORIGINS.items():
        if name in plain and stored.get(name) != plain[name]:
            raise TrainingError(f"{path} was made with other {what}; resume with the same, or start a new run under another name.")
    changed = [name for name in plain if name not in _FREE and stored.get(name) != plain[name]]
    if changed:
        name = changed[0]
        raise TrainingError(
            f"{path} was made with {name} = {stored.get(name)!r}, this run has {plain[name]!r}; resume with the same settings, or start a new "
            "run under another name."
        )
    adapter.load_state_dict({k.removeprefix("adapter."): v for k, v in tensors.items() if k.startswith("adapter.")})
    layout = optimiser.state_dict()
    entries: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".", 2)
            entries.setdefault(int(index), {})[name] = value
    for key, value in json.loads(metadata["optimiser"]).items():
        index, name = key.split(".", 1)
        entries.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": entries, "param_groups": layout["param_groups"]})
    generator.set_state(tensors["generator"])
    for key in dead.idle:
        dead.idle[key].copy_(tensors[f"idle.{key}"])
    kept = json.loads(metadata["state"])
    # Version 0.1.0 kept one number more.
    return RunState(kept["step"], kept["smoothed_loss"], kept["log"])
