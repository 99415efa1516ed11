"""Clocks for comparisons on a machine that others use too: what is compared takes turns, and medians are kept."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch


def seconds_of(work: Callable[[], Any], device: torch.device | None = None) -> float:
    """How long `work` takes: CPU seconds of this process, or wall seconds of a device that is waited for."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
        began = time.perf_counter()
        work()
        torch.cuda.synchronize(device)
        return time.perf_counter() - began
    began = time.process_time()
    work()
    return time.process_time() - began


def in_turns(runs: Mapping[str, Callable[[], float]], repeats: int, warm_up: int = 1, collect: bool = True) -> dict[str, Any]:
    """Medians of what the runs return, in seconds: A B C A B C …, after `warm_up` rounds that are not counted.

    `collect`: garbage is collected before each run; off for runs so short that this would take most of the time.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warm_up + repeats):
        for name, run in runs.items():
            if collect:
                gc.collect()
            seconds = run()
            if turn >= warm_up:
                times[name].append(seconds)
    return {"seconds": {name: statistics.median(values) for name, values in times.items()}, "all": times, "repeats": repeats}


def median_of(values: Sequence[float]) -> dict[str, Any]:
    """Seconds of runs that are compared with nothing."""
    return {"seconds": statistics.median(values), "most": max(values), "all": list(values), "repeats": len(values)}


def paired_ratio(times: Mapping[str, Sequence[float]], name: str, over: str) -> float:
    """Median over the rounds of one run's time over another's: what slows a whole round down cancels."""
    return statistics.median(a / b for a, b in zip(times[name], times[over], strict=True))


def paired_difference(times: Mapping[str, Sequence[float]], name: str, minus: str) -> float:
    """Median over the rounds of one run's time less another's, in seconds."""
    return statistics.median(a - b for a, b in zip(times[name], times[minus], strict=True))


def peak_bytes(work: Callable[[], Any], device: torch.device | None = None) -> int:
    """The most memory that torch held during `work`, above what it held before."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    # The profiler's own tables sum by operation; the peak needs the single allocations in their order.
    held = peak = 0
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
