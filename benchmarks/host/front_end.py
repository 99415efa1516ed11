"""How smooth the atom selector is: frames while a real mouse hovers, paints and drags over 20,480 atoms, in Chromium on the real host.

Without a graphics card, and on a machine that others use, the time from frame to frame says what the browser and its neighbours allow;
so a row also holds the panel's own work in the frames that have any, and the CPU time of the page's main thread.
"""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ...sparsedict_core.adapter import SparseAdapter
from ...sparsedict_core.config import AdapterConfig
from ...sparsedict_core.file_format import save
from ...sparsedict_core.site import SiteName, SparseSite
from ...tools.comfy_host import default_root
from ..formatting import table
from ..result_table import ResultTable

TABLE = "E8-front-end"
LAYERS, ATOMS = 40, 512
FILE = "wide.safetensors"
SIZE = (560, 680)  # of the node, in CSS pixels
MOVES = 120  # of the mouse, in one repeat
FRAME = 1000 / 60  # milliseconds

# Frames and the panel's own work in them. Work is what its handlers and its drawing take, selection and addresses included.
RECORD = """() => {
  const { map, slider } = app.graph.getNodeById(2).sparsedictSelector, times = [], works = [];
  let work = 0, going = true;
  for (const [owner, name] of [[map, "draw"], [map, "move"], [map, "press"], [map, "release"], [slider, "slide"]]) {
    if (Object.hasOwn(owner, name)) continue;
    const real = owner[name];
    owner[name] = function (...given) {
      const start = performance.now();
      try { return real.apply(this, given); } finally { window.sparsedictWork(performance.now() - start); }
    };
  }
  window.sparsedictWork = (milliseconds) => { work += milliseconds; };
  // What the map draws in this frame comes after this callback, and before a task that is set here.
  const end = () => { works.push(work); work = 0; };
  const frame = (now) => { times.push(now); setTimeout(end); if (going) requestAnimationFrame(frame); };
  requestAnimationFrame(frame);
  window.sparsedictStop = () => { going = false; return { times, works }; };
}"""


def many_atoms(path: Path) -> None:
    """A file of LAYERS × ATOMS atoms, as small as it can be."""
    generator, config, sites = torch.Generator().manual_seed(0), AdapterConfig(atoms=ATOMS, rank=4), []
    for layer in range(LAYERS):
        site = SparseSite.create(SiteName(f"transformer.blocks.{layer}.attn.to_out.0", layer), 8, 8, config, generator)
        site.importance = torch.rand(ATOMS, generator=generator).pow(6) + 1e-4
        sites.append(site)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(SparseAdapter(sites, config, "transformer", {"title": "wide"}), path, overwrite=True)


def graph() -> dict[str, Any]:
    """Load Sparse Dict → Select Atoms."""
    return {
        "last_node_id": 2, "last_link_id": 1, "groups": [], "config": {}, "extra": {}, "version": 0.4,
        "nodes": [
            {"id": 1, "type": "SparseDictLoad", "pos": [20, 60], "size": [280, 80], "flags": {}, "order": 0, "mode": 0, "inputs": [],
             "outputs": [{"name": "sparse dict", "type": "SPARSE_DICT", "links": [1]}], "properties": {}, "widgets_values": [FILE]},
            {"id": 2, "type": "SparseDictSelectAtoms", "pos": [340, 60], "size": list(SIZE), "flags": {}, "order": 1, "mode": 0,
             "inputs": [{"name": "sparse_dict", "type": "SPARSE_DICT", "link": 1}], "outputs": [],
             "properties": {}, "widgets_values": ["share", 0.25, 64, 0.01, "", "importance", False, "", False, False]},
        ],
        "links": [[1, 1, 0, 2, 0, "SPARSE_DICT"]],
    }  # fmt: skip


def zigzag(box: Mapping[str, float], moves: int, rounds: int = 5) -> list[tuple[float, float]]:
    """Points across a box, from its top to its bottom."""
    points = []
    for number in range(moves):
        part = number / (moves - 1)
        swing = abs((part * rounds) % 2 - 1)
        points.append((box["x"] + box["width"] * (0.12 + 0.72 * swing), box["y"] + box["height"] * (0.04 + 0.92 * part)))
    return points


def hover(page: Any) -> None:
    for x, y in zigzag(page.locator("canvas.sd-map").bounding_box(), MOVES):
        page.mouse.move(x, y)


def paint(page: Any) -> None:
    points = zigzag(page.locator("canvas.sd-map").bounding_box(), MOVES)
    page.mouse.move(*points[0])
    page.mouse.down()
    for x, y in points[1:]:
        page.mouse.move(x, y)
    page.mouse.up()


def rectangle(page: Any) -> None:
    page.keyboard.down("Shift")
    paint(page)
    page.keyboard.up("Shift")


def slide(page: Any) -> None:
    box = page.locator("canvas.sd-slider").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 30)
    page.mouse.down()
    for x, _ in zigzag(box, MOVES):
        page.mouse.move(x, box["y"] + 30)
    page.mouse.up()


def still(page: Any) -> None:
    """Nothing: what the browser and the machine give at best."""
    page.wait_for_timeout(2000)


ACTIONS: dict[str, Callable[[Any], None]] = {"nothing": still, "hover": hover, "paint": paint, "rectangle": rectangle, "slider": slide}


def summary(values: Sequence[float]) -> dict[str, float]:
    """Milliseconds."""
    ordered = sorted(values)
    return {"median": statistics.median(ordered), "p95": ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))], "most": ordered[-1]}


def measured(page: Any, protocol: Any, act: Callable[[Any], None], repeats: int) -> dict[str, Any]:
    """One row: frames of all repeats together, after one that is not counted."""
    times: list[float] = []
    works: list[float] = []
    busy = layouts = 0.0
    for turn in range(repeats + 1):
        page.evaluate(RECORD)
        before = counters(protocol)
        act(page)
        after = counters(protocol)
        got = page.evaluate("() => window.sparsedictStop()")
        if turn:
            times += [b - a for a, b in zip(got["times"], got["times"][1:])]
            # A frame in which the mouse brought nothing new says nothing of the panel.
            works += [work for work in got["works"] if work > 0] or got["works"]
            busy += 1000 * (after["TaskDuration"] - before["TaskDuration"])
            layouts += after["LayoutCount"] - before["LayoutCount"]
    return {
        "frames": len(works), "frame_ms": summary(times), "own_ms": summary(works),
        "own_over_a_frame": sum(work > FRAME for work in works) / len(works),
        "main_thread_ms_a_frame": busy / len(works), "layouts_a_frame": layouts / len(works),
    }  # fmt: skip


def counters(protocol: Any) -> dict[str, float]:
    """The browser's own, with durations in CPU seconds of the page's main thread."""
    return {entry["name"]: entry["value"] for entry in protocol.send("Performance.getMetrics")["metrics"]}


def measure(results: Path, repeats: int, say: Callable[[str], None]) -> None:
    """Write results/E8-front-end/atom-map.json. Raises SystemExit where there is no host or no Chromium."""
    from ...tools import browser
    from ...tools.make_example_workflows import running_host

    root = default_root()
    if not (root / "main.py").exists():
        raise SystemExit(f"there is no ComfyUI at {root}; run `python3 dev.py comfy --setup-only`, or set COMFYUI_ROOT.")
    if browser.chromium() is None:
        raise SystemExit("there is no Chromium; install it (Debian: apt install chromium).")
    with running_host(root) as host, tempfile.TemporaryDirectory() as profile:
        many_atoms(host.base / "models" / "sparse_dicts" / FILE)
        with browser.front_end(host, Path(profile)) as page:
            protocol = page.context.new_cdp_session(page)
            protocol.send("Performance.enable", {"timeDomain": "threadTicks"})
            about = {
                "host": host.get("/system_stats")["system"]["comfyui_version"], "browser": protocol.send("Browser.getVersion")["product"],
                "machine": platform.machine(), "graphics": "none", "layers": LAYERS, "atoms": LAYERS * ATOMS, "moves": MOVES, "repeats": repeats,
            }  # fmt: skip
            rows = []
            for name, act in ACTIONS.items():
                browser.open_workflow(page, graph(), "() => app.graph.getNodeById(2)?.sparsedictSelector?.kept() != null")
                rows.append({"what": name, **measured(page, protocol, act, repeats)})
                say(json.dumps(rows[-1]))
            ResultTable(TABLE, results).put("atom-map", {**about, "rows": rows})


def front_end_table(results: Sequence[Mapping[str, Any]]) -> str:
    """For RESULTS.md."""
    about = results[0]
    head = (
        f"{about['atoms']:,} atoms in {about['layers']} layers, {about['browser']} without a graphics card on ComfyUI {about['host']}, a real mouse moving. "
        "The panel's own work is what its handlers and its drawing take in a frame (of 16.7 ms at 60 a second); the rest of a frame is the browser's, the "
        "host's and, on a shared machine, other programs'."
    )
    rows = [
        [row["what"], str(row["frames"]), *(f"{row['own_ms'][key]:.1f}" for key in ("median", "p95")), f"{row['own_over_a_frame']:.1%}",
         f"{row['main_thread_ms_a_frame']:.1f}", *(f"{row['frame_ms'][key]:.1f}" for key in ("median", "p95"))]
        for result in results for row in result["rows"]
    ]  # fmt: skip
    columns = ["what the mouse does", "frames", "own work, ms ↓", "95 % below", "frames with more than 16.7 ms of it ↓", "CPU of the main thread, ms a frame", "frame to frame, ms", "95 % below"]
    return f"{head}\n\n{table(columns, rows)}"
