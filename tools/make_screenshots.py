"""Writes docs/images/panels/*: the pack's panels in the host's real front end, dark and light; and out/screenshots/*, which only the eye needs:
every example with its panels in both of the host's renderers.

    python -m sparsedict.tools.make_screenshots [--host FOLDER] [--only NAME ...]

A ComfyUI is started for it (the one that `dev.py comfy` makes), and an example is trained in it: some minutes.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .browser import THEMES, front_end, open_workflow, set_nodes_2, set_setting, set_theme, settle
from .comfy_host import PROJECT, default_root
from .make_example_workflows import FOLDER as EXAMPLES
from .make_example_workflows import running_host

FOLDER = PROJECT / "docs" / "images" / "panels"
TO_LOOK_AT = PROJECT / "out" / "screenshots"
MOST_BYTES = 300_000
SIZE = (1500, 1250)
FINE = 1.5  # sharp on a screen with small pixels, and still a small file
EDGE = 8  # pixels round a node
PANELS = {"SparseDictTrain": "Training monitor"}


def shoot(page: Any, name: str, place: Callable[[], list[float]], kind: str = "png") -> None:
    """One picture in each theme, of what `place` says: x, y, width, height on the page."""
    from PIL import Image

    for theme in THEMES:
        set_theme(page, theme)
        x, y, width, height = place()
        taken = page.screenshot(clip={"x": x, "y": y, "width": width, "height": height})
        picture = Image.open(io.BytesIO(taken)).convert("RGB")
        path = FOLDER / f"{name}-{theme}.{kind}"
        picture.save(path, quality=76, optimize=True)
        if path.stat().st_size > MOST_BYTES:
            raise SystemExit(f"{path.name} has {path.stat().st_size} bytes; at most {MOST_BYTES}: make the picture smaller.")
        print(path.relative_to(PROJECT), path.stat().st_size)
    set_theme(page, THEMES[0])


def node_box(page: Any, kind: str, panel: bool = False) -> list[float]:
    """Where the first node of a kind is on the page; with `panel` its own panel alone."""
    if panel:
        box = page.get_by_role("group", name=PANELS[kind]).bounding_box()
        return [box["x"] - EDGE, box["y"] - EDGE, box["width"] + 2 * EDGE, box["height"] + 2 * EDGE]
    return page.evaluate(
        """([kind, edge]) => { const node = app.graph._nodes.find(node => node.type === kind), { scale, offset } = app.canvas.ds;
        const canvas = app.canvas.canvas.getBoundingClientRect(), x = canvas.left + (node.pos[0] + offset[0]) * scale, y = canvas.top + (node.pos[1] - 30 + offset[1]) * scale;
        return [x - edge, y - edge, node.size[0] * scale + 2 * edge, (node.size[1] + 30) * scale + 2 * edge]; }""",
        [kind, EDGE],
    )


def bring(page: Any, kind: str, at: tuple[float, float] = (420, 120), size: tuple[float, float] | None = None) -> None:
    """Moves the graph so that the first node of a kind is at a place of the page, at its natural size."""
    page.evaluate(
        """([kind, at, size]) => { const node = app.graph._nodes.find(node => node.type === kind), canvas = app.canvas.canvas.getBoundingClientRect();
        if (size) node.setSize(size); app.canvas.ds.scale = 1; app.canvas.ds.offset = [at[0] - canvas.left - node.pos[0], at[1] - canvas.top - node.pos[1] + 30];
        app.canvas.setDirty(true, true); }""",
        [kind, list(at), list(size) if size else None],
    )
    page.wait_for_timeout(700)


def set_field(page: Any, name: str, value: str) -> None:
    """Of the training node."""
    page.evaluate(
        "([name, value]) => { app.graph._nodes.find(node => node.type === 'SparseDictTrain').widgets.find(each => each.name === name).value = value; }", [name, value]
    )


def queue(page: Any) -> None:
    page.evaluate("() => app.queuePrompt(0, 1)")


def until_done(page: Any, host: Any) -> None:
    """Waits for all that is queued."""
    while any(host.get("/queue").values()):
        page.wait_for_timeout(500)
    page.wait_for_timeout(1500)


def example(name: str) -> dict[str, Any]:
    return json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))


def train(page: Any, host: Any) -> None:
    """Example 1 as it is, with the monitor in the middle of the run; leaves its file behind."""
    open_workflow(page, example("1 From five pictures to a prompt"))
    set_field(page, "preview_prompts", "a zorp at the top on a sky background\na flat fox on the left on a sand background")
    bring(page, "SparseDictTrain")
    queue(page)
    monitor = "app.graph._nodes.find(node => node.type === 'SparseDictTrain').sparsedictMonitor"
    page.wait_for_function(f"() => {monitor}.step() > 190", timeout=1_200_000)
    shoot(page, "train-monitor", lambda: node_box(page, "SparseDictTrain", panel=True))
    until_done(page, host)


def whole_workflow(page: Any, host: Any) -> None:
    """The graph that `train` has run, as the example opens."""
    page.set_viewport_size({"width": 1920, "height": 960})
    page.evaluate("view => { Object.assign(app.canvas.ds, view); app.canvas.setDirty(true, true); }", example("1 From five pictures to a prompt")["extra"]["ds"])
    page.wait_for_timeout(1500)
    shoot(page, "workflow", lambda: [68, 90, 1840, 860], "jpg")
    page.set_viewport_size({"width": SIZE[0], "height": SIZE[1]})


def selector(page: Any, host: Any) -> None:
    """Select Atoms on the file that `train` has made."""
    workflow = {
        "last_node_id": 2, "last_link_id": 1, "groups": [], "config": {}, "extra": {}, "version": 0.4,
        "nodes": [
            {"id": 1, "type": "SparseDictLoad", "pos": [-340, 60], "size": [280, 80], "flags": {}, "order": 0, "mode": 0, "inputs": [],
             "outputs": [{"name": "result", "type": "SPARSE_DICT", "links": [1]}, {"name": "trigger_words", "type": "STRING", "links": None}],
             "properties": {}, "widgets_values": ["zorp.safetensors"]},
            {"id": 2, "type": "SparseDictSelectAtoms", "pos": [0, 60], "size": [560, 560], "flags": {}, "order": 1, "mode": 0,
             "inputs": [{"name": "sparse_dict", "type": "SPARSE_DICT", "link": 1}],
             "outputs": [{"name": "result", "type": "SPARSE_DICT", "links": []}, {"name": "addresses", "type": "STRING", "links": None},
                         {"name": "count", "type": "INT", "links": []}],
             "properties": {}, "widgets_values": ["share", 0.1, 64, 0.01, "", "importance", False, "", False, False]},
        ],
        "links": [[1, 1, 0, 2, 0, "SPARSE_DICT"]],
    }  # fmt: skip
    open_workflow(page, workflow, "() => app.graph.getNodeById(2)?.sparsedictSelector?.kept() != null")
    bring(page, "SparseDictSelectAtoms", size=(560, 540))
    box = page.locator("canvas.sd-map").bounding_box()

    def place() -> list[float]:
        page.mouse.move(box["x"] + 150, box["y"] + box["height"] * 0.52)
        page.wait_for_timeout(300)
        return node_box(page, "SparseDictSelectAtoms")

    shoot(page, "atom-selector", place)


def sweep(page: Any, host: Any) -> None:
    """Example 3, with its training at the length of the other's."""
    open_workflow(page, example("6 Atom sweep"))
    set_field(page, "effort", "balanced")
    bring(page, "SparseDictSweepViewer")
    queue(page)
    page.wait_for_function("() => app.graph._nodes.find(node => node.type === 'SparseDictSweepViewer').sparsedictViewer.count() > 0", timeout=1_200_000)
    until_done(page, host)
    page.locator(".sd-range").fill("4")
    shoot(page, "sweep-viewer", lambda: node_box(page, "SparseDictSweepViewer"))


def examples(page: Any, host: Any) -> None:
    """Each example as it opens, in both renderers and both themes; what has been run by the other shots shows its results."""
    TO_LOOK_AT.mkdir(parents=True, exist_ok=True)
    page.set_viewport_size({"width": 1920, "height": 960})
    for renderer in ("canvas", "nodes-2"):
        for path in sorted(EXAMPLES.glob("*.json")):
            page.evaluate("async graph => { await app.loadGraphData(graph); }", json.loads(path.read_text(encoding="utf-8")))
            set_nodes_2(page, renderer == "nodes-2")
            for theme in THEMES:
                set_theme(page, theme)
                settle(page)
                page.screenshot(path=str(TO_LOOK_AT / f"{path.stem}-{renderer}-{theme}.jpg"), quality=70)
    set_nodes_2(page, False)
    set_theme(page, THEMES[0])
    page.set_viewport_size({"width": SIZE[0], "height": SIZE[1]})


def compare(page: Any, host: Any) -> None:
    """Example 5, which trains nothing."""
    open_workflow(page, example("5 Look inside a LoRA"))
    bring(page, "SparseDictCompare")
    queue(page)
    page.wait_for_function("() => app.graph._nodes.find(node => node.type === 'SparseDictCompare').sparsedictComparer.count() === 3", timeout=600_000)
    until_done(page, host)
    shoot(page, "compare", lambda: node_box(page, "SparseDictCompare"))


SHOTS: dict[str, Callable[[Any, Any], None]] = {"train": train, "workflow": whole_workflow, "selector": selector, "sweep": sweep, "compare": compare, "examples": examples}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", type=Path, default=default_root())
    parser.add_argument("--only", nargs="+", choices=SHOTS, default=list(SHOTS), help="only these; `workflow` and `selector` show what `train` made")
    arguments = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with running_host(arguments.host.resolve()) as host, tempfile.TemporaryDirectory() as profile, front_end(host, Path(profile), SIZE, FINE) as page:
        set_setting(page, "LiteGraph.Canvas.MinFontSizeForLOD", 0)
        for name in arguments.only:
            SHOTS[name](page, host)


if __name__ == "__main__":
    main()
