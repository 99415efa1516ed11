"""A host as a user has it: how long the pack takes at its start, and how long a training takes to stop when it is told to."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...tools.make_example_workflows import running_host
from ..timing import median_of

PACK = "SparseDict"
#: Where a run is stopped: in its steps, and while the base's own pictures are made.
STOPS = {"steps": {"quiet_samples": 8, "sampling_steps": 4}, "quiet samples": {"quiet_samples": 96}}


def server_rows(root: Path, repeats: int) -> Iterator[dict[str, Any]]:
    """Seconds by the clock."""
    starts = []
    for _ in range(repeats):
        with running_host(root) as host:
            starts.append(import_seconds(host.log))
            version = host.get("/system_stats")["system"]["comfyui_version"]
    yield {"what": "start", "host": version, **median_of(starts)}
    with running_host(root) as host:
        for stage, settings in STOPS.items():
            yield {"what": "stop", "host": version, "while": stage, **median_of([stop_seconds(host, stage, settings, number) for number in range(repeats)])}


def import_seconds(log: str) -> float:
    """What the host itself counts for the pack's import."""
    found = re.search(rf"([\d.]+) seconds: \S*{PACK}\b", log)
    assert found is not None, log[-2000:]
    return float(found.group(1))


def stop_seconds(host: Any, stage: str, settings: dict[str, int], number: int) -> float:
    """From the interrupt to the end of the prompt, with everything written that is."""
    prompt = {
        "demo": {"class_type": "SparseDictDemoModel", "inputs": {}},
        "set": {"class_type": "SparseDictLoadImageSet", "inputs": {"folder": "demo: zorp", "caption": "", "word": "zorp"}},
        "train": {
            "class_type": "SparseDictTrain",
            "inputs": {"model": ["demo", 0], "clip": ["demo", 1], "vae": ["demo", 2], "images": ["set", 0], "captions": ["set", 1], "name": f"stop{number}",
                       "word": "zorp", "caption": "", "preset": "concept", "effort": "thorough", "training_seed": number, **settings},
        },
    }  # fmt: skip
    with host.listen() as client:
        queued = host.queue(prompt, client.id)

        def events() -> list[dict[str, Any]]:
            return [data for kind, data in list(client.events) if kind == "sparsedict.train"]

        while not any(event["event"] == "step" if stage == "steps" else event.get("stage") == stage for event in events()):
            time.sleep(0.02)
        time.sleep(0.5)
        began = time.perf_counter()
        host.interrupt()
        while "execution_error" not in [kind for kind, _ in list(client.events)]:
            time.sleep(0.005)
        took = time.perf_counter() - began
        host.wait(queued)
    return took
