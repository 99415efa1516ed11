"""Prompts of random graphs through the host's own executor, with interrupts at any moment and models that are unloaded between nodes."""

from __future__ import annotations

import asyncio
import copy
import random
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from torch import Tensor

from ...demo_model.pipeline import DemoPipeline
from .graphs import TAKE, Graph, write_files
from .row import Row

#: A picture in [0, 1] may differ by so much at one place: other modules, and sums in another order, make 1e-5.
MOST = 1e-3
INTERRUPTED, UNLOADED, FORGOTTEN = 0.3, 0.3, 0.1  # of the prompts, of the nodes, of the prompts


class Take:
    """The end of a graph, in the host's plain form of a node."""

    RETURN_TYPES = ()
    FUNCTION = "take"
    OUTPUT_NODE = True
    CATEGORY = "soak"
    taken: ClassVar[list[Tensor]] = []

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",)}}

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:
        return float("nan")  # taken each time, also where the picture comes from the host's cache

    def take(self, image: Tensor) -> dict[str, Any]:
        self.taken.append(image.clone())
        return {"ui": {}}


def prompts(folder: Path, count: int = 200, seed: int = 0) -> tuple[Row, str]:
    """`count` prompts, adapters in `folder`; beside the row, what was done to them. The host's modules are there already, with the pack's nodes."""
    import comfy.model_management as management
    import comfy.utils
    import execution

    import nodes

    row, chance = Row("queued prompts of random graphs in ComfyUI, against the core without it"), random.Random(seed)
    interrupts, unloads, worst = 0, 0, 0.0
    nodes.NODE_CLASS_MAPPINGS[TAKE] = Take

    def said(event: str, data: dict[str, Any], client: str | None = None) -> None:
        nonlocal unloads
        if event == "executing" and chance.random() < UNLOADED:
            management.unload_all_models()
            unloads += 1

    # As the host's own hook: each step of the sampler looks whether it shall stop.
    comfy.utils.set_progress_bar_global_hook(lambda *_, **__: management.throw_exception_if_processing_interrupted())
    executor = execution.PromptExecutor(SimpleNamespace(client_id="soak", last_node_id=None, send_sync=said), cache_args={"ram": 16.0, "lru": 0})
    pipeline = DemoPipeline.load()
    write_files(folder, pipeline)
    for _ in range(count):
        row.tried += 1
        graph = Graph(chance, folder)
        if chance.random() < FORGOTTEN:
            executor.reset()
        if chance.random() < INTERRUPTED:
            later = threading.Timer(chance.uniform(0, 0.5), nodes.interrupt_processing)
            later.start()
            _run(execution, executor, graph.prompt)
            later.cancel()
            later.join()
            interrupts += any(event == "execution_interrupted" for event, _ in executor.status_messages)
        made = _run(execution, executor, graph.prompt)
        off = made if isinstance(made, str) else float((made - (graph.picture(pipeline).movedim(1, -1) + 1) / 2).abs().max())
        worst = worst if isinstance(off, str) else max(worst, off)
        if isinstance(off, str) or not off <= MOST:
            row.violations.append(f"prompt {row.tried} of seed {seed}: {off} {graph.prompt}")
    return row, f"{interrupts} of them also interrupted at any moment and run again, models unloaded {unloads} times between nodes; pictures differ by at most {worst:.1g}"


def _run(execution: Any, executor: Any, prompt: dict[str, Any]) -> Tensor | str:
    """The picture, or why there is none."""
    Take.taken.clear()
    prompt = copy.deepcopy(prompt)  # the host writes into it, and gets each anew
    valid, error, outputs, details = asyncio.run(execution.validate_prompt("soak", prompt, None))
    if not valid:
        return f"{error} {details}"[:2000]
    executor.execute(prompt, "soak", {"client_id": "soak"}, outputs)
    return Take.taken[-1] if Take.taken else f"no picture: {executor.status_messages[-1]}"
