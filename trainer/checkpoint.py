"""Checkpoints: everything that a run needs to go on bit for bit, in one safetensors file, written whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.atomic_write import write_atomically
from ..sparsedict_core.errors import CheckpointError
from ..sparsedict_core.regular_file import read_regular
from .average import Average
from .config import TrainConfig
from .revival import DeadAtoms

FORMAT = "sparse_dict_checkpoint"
VERSION = 2  # 1 had no checksum; it is read


@dataclass
class RunState:
    """What changes from step to step, besides the adapter and the optimiser."""

    step: int  # steps done
    smoothed_loss: float | None
    log: list[dict[str, float]]


def folder_of(out: Path) -> Path:
    """Where the checkpoints of a run with this --out are."""
    return out.with_name(out.name.removesuffix(".safetensors") + ".checkpoints")


def all_in(folder: Path) -> list[Path]:
    """The checkpoints in a folder, by their steps."""
    found = {path: path.stem.removeprefix("step-") for path in folder.glob("step-*.safetensors")}
    return sorted((path for path, step in found.items() if step.isdecimal()), key=lambda path: int(found[path]))


def newest(folder: Path) -> Path | None:
    """The checkpoint of the latest step, or None."""
    found = all_in(folder)
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
    average: Average | None = None,
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
    # Prodigy keeps what it has found there.
    groups = [{name: value for name, value in group.items() if is_number(value)} for group in optimiser.param_groups]
    if average is not None:
        tensors |= {f"average.{name}": value for name, value in average.values.items()}
    tensors |= {f"idle.{key}": value for key, value in dead.idle.items()}
    tensors["generator"] = generator.get_state()
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "config": json.dumps(config),
        "state": json.dumps(dataclasses.asdict(state)),
        "optimiser": json.dumps(scalars),
        "groups": json.dumps(groups),
    }
    path = folder / f"step-{state.step:06d}.safetensors"
    write_atomically(path, to_bytes(tensors, {**metadata, "checksum": checksum(tensors, metadata)}))
    found = all_in(folder)
    own = found.index(path) + 1
    _drop(found[own:])
    keep_last(folder, max(1, keep))
    return path


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def keep_last(folder: Path, count: int) -> None:
    """Drop all but the newest `count`."""
    found = all_in(folder)
    _drop(found[: len(found) - count])


def _drop(paths: list[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):  # one too many is no reason to end the run
            path.unlink()


def checksum(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """Of all names, types, shapes and bytes."""
    found = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


#: What a run starts from; the loop adds their hashes to the settings.
ORIGINS = {"images_hash": "training images or captions", "base_fingerprint": "base weights"}

#: Settings that may differ between a run and its continuation. All but `steps` leave the numbers as they are; the schedules follow `steps`.
_FREE = {"steps", "out", "overwrite", "resume", "preview_every", "preview_prompts", "checkpoint_every", "keep_checkpoints", "tensorboard", "wandb", "moments", "card", "save_precision", "cache", "images", "skip_unreadable", "gradient_checkpointing"}  # fmt: skip


def settings_of(path: Path) -> dict[str, Any]:
    """The settings of the run that wrote a checkpoint. Raises CheckpointError."""
    return _opened(path)[1]["config"]


def begun_with(out: Path) -> dict[str, Any]:
    """The settings of the run whose newest checkpoint lies beside `out`, none without a checkpoint. Raises CheckpointError."""
    kept = newest(folder_of(out))
    return {} if kept is None else settings_of(kept)


def check_settings(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The settings of the run that wrote a checkpoint. Raises CheckpointError where it is damaged or they are another run's."""
    metadata = _opened(path)[1]
    _compare(path, config, metadata)
    return metadata["config"]


def read(
    path: Path, config: dict[str, Any], adapter: SparseAdapter, optimiser: torch.optim.Optimizer, generator: torch.Generator, dead: DeadAtoms,
    average: Average | None = None,
) -> RunState:
    """Put a checkpoint's state into the run's parts. Raises CheckpointError if it is damaged or of another run's settings."""
    tensors, metadata = _opened(path)
    _compare(path, config, metadata)
    try:
        # By name, as version 0.1.0 kept one number more.
        state = RunState(**{field.name: metadata["state"][field.name] for field in dataclasses.fields(RunState)})
        adapter.load_state_dict({k.removeprefix("adapter."): v for k, v in tensors.items() if k.startswith("adapter.")})
        groups = optimiser.state_dict()["param_groups"]
        kept = metadata["groups"] or [{}] * len(groups)
        groups = [{**own, **numbers} for own, numbers in zip(groups, kept, strict=True)]
        optimiser.load_state_dict({"state": _optimiser_state(tensors, metadata), "param_groups": groups})
        for name, value in average.values.items() if average is not None else ():
            value.copy_(tensors[f"average.{name}"])
        generator.set_state(tensors["generator"])
        for key in dead.idle:
            dead.idle[key].copy_(tensors[f"idle.{key}"].view_as(dead.idle[key]))
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise _damaged(path, f"what it holds is not this run's: {error}") from error
    return state


def _compare(path: Path, config: dict[str, Any], metadata: dict[str, Any]) -> None:
    plain = json.loads(json.dumps(config))
    # A setting that the version of then did not have was what is its default now.
    stored = {**json.loads(json.dumps(TrainConfig().to_dict())), **metadata["config"]}
    free = _FREE | {name for name in ("dtype", "prior_hash", "sites") if name not in metadata["config"]}
    if "prior_hash" in metadata["config"]:
        free.add("prior_images")  # the same ones may have moved
    for name, what in {**ORIGINS, "prior_hash": "prior images or captions"}.items():
        if name in plain and name not in free and stored.get(name) != plain[name]:
            raise CheckpointError(f"{path} was made with other {what}; resume with the same, or start a new run under another name.")
    changed = [name for name in plain if name not in free and stored.get(name) != plain[name]]
    if changed:
        differences = "; ".join(f"{name} = {stored.get(name)!r}, this run has {plain[name]!r}" for name in changed)
        raise CheckpointError(
            f"{path} was made with {differences}; resume with the same settings (steps, previews, "
            "checkpoints and logs may be others), or start a new run under another name."
        )
    done = metadata["state"].get("step")
    if isinstance(done, int) and done > plain.get("steps", done):
        raise CheckpointError(f"{path} has {done} steps done already, more than the {plain['steps']} asked for; give more steps.")


def _opened(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and decoded metadata, once it is certain that they are what was written."""
    try:
        data = read_regular(path)  # not mapped to the file, which may change or go
        tensors = from_bytes(data)
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    except KeyError:
        metadata = {}
    except Exception as error:  # the reader raises almost anything on a damaged file
        raise _damaged(path, str(error) or type(error).__name__) from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no checkpoint of a training run; --resume needs one from the same --out.")
    version = metadata.get("version", "1")
    if version not in ("1", str(VERSION)):
        raise CheckpointError(f"{path} is a checkpoint of version {version[:20]!r}, this program reads up to {VERSION}; go on with the version that wrote it.")
    kept = metadata.pop("checksum", None)
    if version != "1" and kept != checksum(tensors, metadata):
        raise _damaged(path, "its checksum is another")
    try:
        decoded = {name: json.loads(metadata[name]) for name in ("config", "state", "optimiser")}
        groups = json.loads(metadata.get("groups", "[]"))  # older ones have none
    except (KeyError, ValueError) as error:
        raise _damaged(path, f"its settings cannot be read: {error}") from error
    if not all(isinstance(value, dict) for value in decoded.values()):
        raise _damaged(path, "its settings are none")
    return tensors, {**decoded, "groups": groups, "version": version}


def _optimiser_state(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> dict[int, dict[str, Any]]:
    entries: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".", 2)
            entries.setdefault(int(index), {})[name] = value
    for key, value in metadata["optimiser"].items():
        index, name = key.split(".", 1)
        entries.setdefault(int(index), {})[name] = value
    # Without a checksum, one that is not there would begin anew in silence.
    if metadata["version"] == "1" and (len({frozenset(entry) for entry in entries.values()}) > 1 or set(entries) != set(range(len(entries)))):
        raise ValueError("a tensor of the optimiser is missing")
    return entries


def _damaged(path: Path, why: str) -> CheckpointError:
    found = all_in(path.parent)
    at = found.index(path) if path in found else 0
    advice = f"to go on from {found[at - 1].name}" if at else "and start anew, as there is none before it"
    return CheckpointError(f"the checkpoint {path} is damaged ({' '.join(why.split())[:200]}); delete it {advice}.")
