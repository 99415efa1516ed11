"""Sampling with an applied adapter beside an unmerged LoRA, and what another strength or selection costs beside a re-patched LoRA."""

from __future__ import annotations

import contextlib
import gc
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..timing import in_turns
from .cases import Case, full_adapter, kept, lora_weights, names_of, nearest, our_parameters, site_widths

SAMPLING_STEPS, GUIDANCE = 20, 4.0
SHARES = (0.25, 0.10)


class LowRank(nn.Module):
    """B(A x)·scale, as peft computes it beside the module."""

    def __init__(self, down: Tensor, up: Tensor) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(down.shape[1], down.shape[0], bias=False), nn.Linear(up.shape[1], up.shape[0], bias=False)
        self.down.weight, self.up.weight = nn.Parameter(down, requires_grad=False), nn.Parameter(up, requires_grad=False)
        self.scale = 1.0

    def hook(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        return output + self.up(self.down(args[0])) * self.scale


@contextlib.contextmanager
def unmerged(case: Case, weights: dict[str, Tensor]) -> Iterator[None]:
    """The LoRA beside its modules."""
    modules = dict(case.patcher.model.named_modules())
    handles = []
    for name in names_of(case):
        low = LowRank(weights[f"{name}.lora_down.weight"], weights[f"{name}.lora_up.weight"])
        handles.append(modules[name].register_forward_hook(low.hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def sampling(case: Case, rows: int, repeats: int) -> dict[str, Any]:
    import comfy.sd

    import nodes

    from ...comfyui_host.injection import apply_adapter

    adapter = full_adapter(case)
    widths = site_widths(case.patcher)
    parameters = our_parameters(widths, 128, 16)
    rank = nearest(lambda value: sum(value * (a + b) for a, b in widths), parameters)
    weights = lora_weights(case.patcher, names_of(case), rank)
    latent = {"samples": torch.zeros(rows, *case.samples.shape[1:])}

    def sample(patcher: Any) -> float:
        with torch.inference_mode():
            # Loading is no part of it.
            nodes.common_ksampler(patcher, 1, 1, GUIDANCE, "euler", "normal", case.positive[0], case.negative, latent)
            began = time.process_time()
            nodes.common_ksampler(patcher, 1, SAMPLING_STEPS, GUIDANCE, "euler", "normal", case.positive[0], case.negative, latent)
            return time.process_time() - began

    def beside() -> float:
        with unmerged(case, weights):
            return sample(case.patcher)

    merged, _ = comfy.sd.load_lora_for_models(case.patcher, None, weights, 1.0, 0)
    assert len(merged.patches) == len(widths)
    whole = apply_adapter(case.patcher, adapter)
    runs: dict[str, Callable[[], float]] = {
        "base": lambda: sample(case.patcher),
        "merged_lora": lambda: sample(merged),
        "unmerged_lora": beside,
        "ours": lambda: sample(whole),
    }
    for share in SHARES:
        patcher = apply_adapter(case.patcher, adapter, gains=kept(adapter, share))
        runs[f"ours_{share:.0%}"] = lambda patcher=patcher: sample(patcher)
    if hasattr(comfy.sd, "load_bypass_lora_for_models"):
        bypass, _ = comfy.sd.load_bypass_lora_for_models(case.patcher, None, weights, 1.0, 0)
        runs["bypass_lora"] = lambda: sample(bypass)
    return {
        "what": "sampling", "model": case.name, "rows": rows, "steps": SAMPLING_STEPS, "atoms": 128, "rank": 16, "parameters": parameters,
        "lora_rank": rank, "lora_parameters": sum(tensor.numel() for tensor in weights.values()), **in_turns(runs, repeats),
    }  # fmt: skip


def changes(case: Case, repeats: int) -> dict[str, Any]:
    """From another strength to a model that is ready to sample: the node's own work and the host's loading."""
    import comfy.model_management as management
    import comfy.sd

    from ...comfyui_host.injection import apply_adapter

    adapter, widths = full_adapter(case), site_widths(case.patcher)
    selections = itertools.cycle([kept(adapter, share) for share in SHARES])
    strengths = itertools.cycle([0.5, 0.6, 0.7])
    rank = nearest(lambda value: sum(value * (a + b) for a, b in widths), our_parameters(widths, 128, 16))
    same, every = lora_weights(case.patcher, names_of(case), rank), lora_weights(case.patcher, names_of(case, every=True), 16)
    held: list[Any] = [None]

    def timed(make: Callable[[], Any]) -> float:
        # The second of two, so that what went before is of the same kind.
        for _ in range(2):
            with torch.inference_mode():
                began = time.process_time()
                patcher = make()
                management.load_models_gpu([patcher])
                took = time.process_time() - began
            held[0] = patcher  # the last one goes after the clock has stopped
        gc.collect()
        return took

    runs: dict[str, Callable[[], float]] = {
        "lora_same_sites": lambda: timed(lambda: comfy.sd.load_lora_for_models(case.patcher, None, same, next(strengths), 0)[0]),
        "lora_everywhere": lambda: timed(lambda: comfy.sd.load_lora_for_models(case.patcher, None, every, next(strengths), 0)[0]),
        "nothing": lambda: timed(case.patcher.clone),
        "ours_strength": lambda: timed(lambda: apply_adapter(case.patcher, adapter, next(strengths))),
        "ours_selection": lambda: timed(lambda: apply_adapter(case.patcher, adapter, 1.0, next(selections))),
    }
    size = sum(parameter.numel() for parameter in case.patcher.model.parameters())
    result = in_turns(runs, repeats)
    management.load_models_gpu([case.patcher])
    return {
        "what": "change",
        "model": case.name,
        "model_parameters": size,
        "sites": len(widths),
        "lora_rank": rank,
        "everywhere": len(names_of(case, True)),
        **result,
    }


def sampling_rows(case: Case, folder: Path, repeats: int) -> Iterator[dict[str, Any]]:
    if case.name == "sd15":
        return
    yield sampling(case, 1, 2 * repeats)
    yield sampling(case, 4, repeats)


def change_rows(case: Case, folder: Path, repeats: int) -> Iterator[dict[str, Any]]:
    yield changes(case, 5 * repeats)
