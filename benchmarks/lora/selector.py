"""How soon the atom selector shows a dictionary that was a LoRA of SDXL's size, in Chromium on the real host; and what its other uses cost.

The file has another name at each turn, so each answer is a first one to the server and the page.
"""

from __future__ import annotations

import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ...lora.base import open_base
from ...lora.convert import convert_file
from ...sparsedict_core import Selection, compose, load, prune, select
from ...sparsedict_core.gains import bake, resolve_gains
from ...tools.comfy_host import default_root
from ..host.front_end import graph
from ..result_table import ResultTable
from .conversion import TABLE, sdxl_folder, sdxl_lora

# Milliseconds: the server's answer, and from the chosen file to the table in the panel.
SHOWN = """async ([workflow, file]) => {
  await app.loadGraphData(workflow);
  const selector = () => app.graph.getNodeById(2)?.sparsedictSelector;
  performance.clearResourceTimings();
  const begun = performance.now();
  app.graph.getNodeById(1).widgets[0].value = file;
  const asked = () => performance.getEntriesByType("resource").find((entry) => entry.name.includes("/sparsedict/adapter?file=" + encodeURIComponent(file)));
  while (!asked()?.responseEnd || selector()?.kept() == null) await new Promise(requestAnimationFrame);
  const shown = performance.now() - begun, answer = asked();
  return { shown, answer: answer.duration, bytes: answer.encodedBodySize };
}"""


def measure(results: Path, say: Callable[[str], None], repeats: int = 5) -> None:
    """One result. Raises SystemExit where there is no host or no Chromium."""
    from ...tools import browser
    from ...tools.make_example_workflows import running_host

    root = default_root()
    if not (root / "main.py").exists() or browser.chromium() is None:
        raise SystemExit("there is no ComfyUI or no Chromium; run `python3 dev.py comfy --setup-only`, and install chromium.")
    with running_host(root) as host, tempfile.TemporaryDirectory() as scratch:
        folder, path = sdxl_folder(Path(scratch)), Path(scratch) / "dictionary.safetensors"
        sdxl_lora(folder, folder / "lora.safetensors")
        served = host.base / "models" / "sparse_dicts"
        served.mkdir(parents=True, exist_ok=True)
        convert_file(folder / "lora.safetensors", open_base(folder), path, dtype=torch.float16, overwrite=True)
        found: dict[str, Any] = {"machine": platform.machine(), "date": time.strftime("%Y-%m-%d"), "file_bytes": path.stat().st_size, **in_python(path)}
        turns = []
        with browser.front_end(host, folder / "browser") as page:
            for turn in range(repeats):
                shutil.copyfile(path, served / f"was_a_lora_{turn}.safetensors")
                turns.append(page.evaluate(SHOWN, [graph(), f"was_a_lora_{turn}.safetensors"]))
        found |= {key: statistics.median(one[key] for one in turns) for key in ("shown", "answer", "bytes")} | {"repeats": repeats}
        say(f"{found['sites']} sites: the server answers in {found['answer']:.0f} ms, the panel shows the atoms after {found['shown']:.0f} ms")
        ResultTable(TABLE, results).put("selector", found)


def in_python(path: Path) -> dict[str, Any]:
    """CPU seconds of one thread for what the nodes do with a dictionary before anything is sampled."""
    torch.set_num_threads(1)
    adapter = load(path)
    half = select(adapter, Selection(keep=0.5))
    work: dict[str, Callable[[], Any]] = {
        "load": lambda: load(path), "select": lambda: select(adapter, Selection(keep=0.25)), "prune": lambda: prune(adapter, half),
        "scale": lambda: bake(adapter, resolve_gains(adapter, "L0=0.5")), "compose": lambda: compose([("a", adapter, 1.0), ("b", adapter, 0.5)]),
    }  # fmt: skip
    seconds = {}
    for name, act in work.items():
        began = time.process_time()
        act()
        seconds[name] = time.process_time() - began
    return {"sites": len(adapter.sites), "atoms": adapter.atom_count, "cpu_seconds": seconds}
