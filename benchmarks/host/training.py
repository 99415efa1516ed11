"""Training steps in the host, beside its own TrainLoraNode."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from ..timing import in_turns
from .cases import IMAGES, Case, host_parameters, nearest, our_parameters, site_widths

WARM_UP = 4  # steps of a run that are not counted


def step_seconds(times: list[float]) -> float:
    """CPU seconds a step, from the times at the end of each; the first steps are left out."""
    return (times[-1] - times[WARM_UP - 1]) / (len(times) - WARM_UP)


def host_step(case: Case, steps: int, batch: int, rank: int, dtype: str, checkpointing: bool) -> float:
    import comfy_extras.nodes_train as host

    times: list[float] = []
    bar = host.ProgressBar

    class Clock(bar):  # updated once a step
        def update(self, value: int) -> None:
            super().update(value)
            times.append(time.process_time())

    one = {
        "model": case.patcher, "batch_size": batch, "steps": steps, "grad_accumulation_steps": 1, "learning_rate": 1e-4, "rank": rank,
        "optimizer": "Adam", "loss_function": "MSE", "seed": 1, "training_dtype": dtype, "lora_dtype": "fp32",
        "algorithm": next(iter(host.adapter_maps)), "gradient_checkpointing": checkpointing, "existing_lora": "[None]",
    }  # fmt: skip
    host.ProgressBar = Clock
    try:
        with torch.inference_mode():
            host.TrainLoraNode.execute(
                # One LATENT of several pictures fails on 0.3.75.
                latents=[{"samples": row[None].clone()} for row in case.samples],
                positive=case.positive,
                **{name: [value] for name, value in one.items()},
            )
    finally:
        host.ProgressBar = bar
    return step_seconds(times)


def our_step(case: Case, steps: int, batch: int, atoms: int, rank: int, dtype: str, checkpointing: bool, quiet: bool, cache: Path) -> float:
    from ...nodes.train_events import HostCallbacks
    from ...trainer import TrainConfig
    from ...trainer.backends.comfyui import train_in_host

    times: list[float] = []

    class Clock(HostCallbacks):  # what the node itself hands over
        def on_step(self, report: Any) -> None:
            super().on_step(report)
            times.append(time.process_time())

    backend, data = case.backend()
    config = TrainConfig(
        out=cache / "speed.safetensors", overwrite=True, steps=steps, batch_size=batch, atoms=atoms, rank=rank, seed=1, learning_rate=1e-4,
        precision=dtype, gradient_checkpointing=checkpointing, cache=cache, moments=False, checkpoint_every=10**6, keep_checkpoints=0,
        **({"quiet_samples": IMAGES, "quiet_prompts": ["conditioning 0", "conditioning 1"]} if quiet else {"quiet_samples": 0}),
    )  # fmt: skip
    with torch.inference_mode():
        train_in_host(config, backend, lambda: data, Clock(None))
    return step_seconds(times)


def training(case: Case, batch: int, lora_rank: int, ours: tuple[int | None, int | None], dtype: str, checkpointing: bool, steps: int, repeats: int,
             cache: Path) -> dict[str, Any]:  # fmt: skip
    """One comparison; of `ours` (atoms, rank) the one that is None is chosen such that as many numbers are trained."""
    widths, wanted = site_widths(case.patcher), host_parameters(case.patcher, lora_rank)
    atoms, rank = ours
    if rank is None:
        assert atoms is not None
        rank = nearest(lambda value: our_parameters(widths, atoms, value), wanted)
    if atoms is None:
        atoms = nearest(lambda value: our_parameters(widths, value, rank), wanted)
    runs: dict[str, Callable[[], float]] = {
        "host": lambda: host_step(case, steps, batch, lora_rank, dtype, checkpointing),
        "ours": lambda: our_step(case, steps, batch, atoms, rank, dtype, checkpointing, False, cache),
    }
    if batch > 1:
        runs["ours_quiet"] = lambda: our_step(case, steps, batch, atoms, rank, dtype, checkpointing, True, cache)
    result: dict[str, Any] = {
        "what": "training", "model": case.name, "batch": batch, "dtype": dtype, "checkpointing": checkpointing,
        "host_rank": lora_rank, "host_parameters": wanted, "atoms": atoms, "rank": rank, "parameters": our_parameters(widths, atoms, rank),
    }  # fmt: skip
    try:
        return {**result, **in_turns(runs, repeats, warm_up=0)}
    except RuntimeError as error:
        return {**result, "failed": str(error)[:200]}


def training_rows(case: Case, folder: Path, repeats: int) -> Iterator[dict[str, Any]]:
    if case.name == "sd15":
        return
    steps = 40 if case.name == "wan" else 16
    for batch in (1, 4):
        # The host fails in fp32 on SD3 (0.3.75), of which the embedded base is one.
        for dtype in ("fp32", "bf16") if case.name == "wan" else ("bf16",):
            yield training(case, batch, 8, (128, None), dtype, False, steps, repeats, folder)  # the host's default rank, our default atoms
    yield training(case, 1, 1, (None, 16), "bf16", False, steps, repeats, folder)  # the size of our defaults
    yield training(case, 1, 8, (128, None), "bf16", True, steps, repeats, folder)  # the host's default
