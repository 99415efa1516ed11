"""What runs, in a real Chromium on the real host's front end: the examples, the training monitor, the sweep viewer."""

import json
import uuid

import pytest
from PIL import Image
from test_nodes_over_http import FILE, SELECT, make_file
from test_nodes_over_http import node as made
from test_train_node import graph as train_graph

from sparsedict.sparsedict_core.file_format import load
from sparsedict.tools.browser import open_workflow, set_nodes_2, settle, start
from sparsedict.tools.example_graphs import EXAMPLES
from sparsedict.tools.make_example_workflows import FOLDER
from sparsedict.tools.ui_workflow import to_prompt

MONITOR = "app.graph._nodes.find(node => node.type === 'SparseDictTrain')?.sparsedictMonitor"
VIEWER = "app.graph._nodes.find(node => node.type === 'SparseDictSweepViewer')?.sparsedictViewer"
LONG = 3000  # steps; no test waits for their end


def open_prompt(page, prompt, kind):
    """A prompt in the API's format as a workflow of its own, with the node of a kind in view."""
    page.evaluate(
        """async ([prompt, id]) => { await app.loadApiJson(prompt, 'made');
        // Hosts leave the id of the graph before, or none, on what they load so; a workflow that a person makes or opens has its own.
        await app.loadGraphData({ ...app.graph.serialize(), id }); }""",
        [prompt, str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(prompt)))],
    )
    page.wait_for_function("kind => app.graph._nodes.some(node => node.type === kind)", arg=kind)
    page.evaluate(
        """kind => { const node = app.graph._nodes.find(node => node.type === kind), height = node.size[1];
        app.canvas.ds.scale = Math.min(1, 680 / height); app.canvas.ds.offset = [120 / app.canvas.ds.scale - node.pos[0], 160 / app.canvas.ds.scale - node.pos[1]]; }""",
        kind,
    )
    settle(page)


def queue(page):
    page.evaluate("() => app.queuePrompt(0, 1)")


def running(server):
    return server.get("/queue")["queue_running"]


def wait_until_idle(page, server):
    """The host takes a prompt from its queue some time after the last node's output is shown."""
    for _ in range(200):
        if not running(server):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"a prompt still runs: {running(server)}")


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_each_example_loads_and_would_be_queued_as_it_is_written(page, server, name):
    written = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    open_workflow(page, written, f"() => app.graph._nodes.length === {len(written['nodes'])}")
    assert page.evaluate("() => app.graph._nodes.filter(node => node.has_errors).length") == 0
    assert page.locator(".p-dialog").count() == 0
    prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
    wanted = to_prompt(written, server.object_info())
    assert {node: entry["class_type"] for node, entry in prompt.items()} == {node: entry["class_type"] for node, entry in wanted.items()}
    for node, entry in wanted.items():
        for widget, value in entry["inputs"].items():
            assert prompt[node]["inputs"][widget] == value, (node, entry["class_type"], widget)


#: Pairs of nodes that overlap, and what is not in its group, by what the front end itself measures.
OVERLAPS = """() => { const boxes = app.graph._nodes.map(node => { const shown = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect(), zoom = app.canvas.ds.scale;
    return { title: node.title ?? node.type, left: node.pos[0], right: node.pos[0] + Math.max(node.size[0], (shown?.width ?? 0) / zoom - 2),
      top: node.pos[1] - 30, bottom: node.pos[1] + Math.max(node.size[1], (shown?.height ?? 0) / zoom - 32) }; });
  return boxes.flatMap((one, i) => boxes.slice(0, i).filter(other => one.left < other.right && other.left < one.right && one.top < other.bottom && other.top < one.bottom)
    .map(other => `${one.title} / ${other.title}`)); }"""


@pytest.mark.parametrize("vue", [False, True], ids=["canvas", "nodes 2.0"])
def test_no_example_overlaps_and_each_opens_at_its_first_step(page, server, vue):
    open_prompt(page, SWEEP, "SparseDictSweepViewer")
    set_nodes_2(page, vue)
    try:
        for name in sorted(EXAMPLES):
            written = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
            page.evaluate("async graph => { await app.loadGraphData(graph); }", written)
            page.wait_for_function(f"() => app.graph._nodes.length === {len(written['nodes'])}")
            settle(page)
            view = page.evaluate(
                """() => { const { scale, offset } = app.canvas.ds, box = app.canvas.canvas.getBoundingClientRect(), group = app.graph._groups[0]._bounding;
                return { scale, left: (group[0] + offset[0]) * scale, top: (group[1] + offset[1]) * scale, right: (group[0] + offset[0] + 200) * scale, width: box.width }; }"""
            )
            assert view["scale"] >= 0.6 and view["left"] >= 60 and view["top"] >= 60 and view["right"] < view["width"], (name, view)
            if vue:  # nodes out of sight are not drawn there
                page.evaluate("() => { app.canvas.ds.scale = 0.2; app.canvas.ds.offset = [300, 600]; app.canvas.setDirty(true, true); }")
                settle(page)
            assert page.evaluate(OVERLAPS) == [], name
    finally:
        open_prompt(page, SWEEP, "SparseDictSweepViewer")
        set_nodes_2(page, False)


def test_the_monitor_draws_a_run_and_knows_it_after_a_reload(page, server):
    prompt = train_graph("watched", steps=6, preview_prompts="a zorp in the center, night", preview_every=2)
    open_prompt(page, prompt, "SparseDictTrain")
    queue(page)
    page.wait_for_function(f"() => {MONITOR}.points() > 0")
    page.get_by_text("Trained", exact=True).wait_for()
    assert page.get_by_text("The loss is drawn here while it trains.").is_hidden()
    colours = "canvas => new Set(new Uint32Array(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size"
    assert page.get_by_role("img", name="Loss").evaluate(colours) > 5
    page.wait_for_function("() => document.querySelector('img.sd-preview').naturalWidth > 0")
    job = server.get("/sparsedict/train")
    assert job["finished"].endswith("watched.safetensors") and not job["running"] and job["points"][-1]["step"] == 6
    start(page, server)
    open_prompt(page, prompt, "SparseDictTrain")
    page.wait_for_function(f"() => {MONITOR}?.points() > 0")
    page.get_by_text("Trained", exact=True).wait_for()
    page.wait_for_function("() => document.querySelector('img.sd-preview').naturalWidth > 0")


def test_a_running_job_is_shown_after_a_reload_and_its_button_stops_and_keeps(page, server):
    prompt = train_graph("ended by its button", steps=LONG, checkpoint_every=1000)
    open_prompt(page, prompt, "SparseDictTrain")
    queue(page)
    page.wait_for_function(f"() => {MONITOR}.points() > 2")
    seen = page.evaluate(f"() => {MONITOR}.step()")
    start(page, server)
    open_prompt(page, prompt, "SparseDictTrain")
    page.wait_for_function(f"() => {MONITOR}?.step() > 0")
    assert page.evaluate(f"() => {MONITOR}.step()") >= seen and running(server)
    # Its events go on too.
    page.wait_for_function(f"seen => {MONITOR}.step() > seen + 2", arg=page.evaluate(f"() => {MONITOR}.step()"))
    page.get_by_role("button", name="Stop and keep").click()
    page.get_by_text("Stopped at step").wait_for()
    assert page.get_by_role("button", name="Stop and keep").is_hidden()
    adapter = load(server.base / "output" / "sparse_dicts" / "ended by its button.safetensors")
    assert adapter.atom_count > 0 and seen < page.evaluate(f"() => {MONITOR}.step()") < LONG
    # The graph has gone on, and no dialog is in the way.
    page.wait_for_function("() => app.graph._nodes.find(node => node.type === 'PreviewAny').widgets.some(field => String(field.value).includes('stopped after'))")
    wait_until_idle(page, server)
    assert page.locator(".p-dialog").count() == 0
    start(page, server)
    open_prompt(page, prompt, "SparseDictTrain")
    page.get_by_text("Stopped at step").wait_for()


def test_settings_at_their_defaults_are_folded_and_can_be_shown(page):
    open_prompt(page, train_graph("folded", steps=7), "SparseDictTrain")
    hidden = "() => app.graph._nodes.find(node => node.type === 'SparseDictTrain').widgets.filter(field => field.hidden).map(field => field.name)"
    folded = page.evaluate(hidden)
    assert "guidance" in folded and "resume" in folded
    assert not {"name", "word", "preset", "effort", "steps", "preview_prompts"} & set(folded)
    before = page.evaluate("async () => (await app.graphToPrompt()).output")
    page.get_by_role("button", name="All settings").click()
    assert page.evaluate(hidden) == []
    # All of them make the node taller than the window.
    page.get_by_role("button", name="Fewer settings").dispatch_event("click")
    assert page.evaluate(hidden) == folded
    assert page.evaluate("async () => (await app.graphToPrompt()).output") == before


def sweep(caption=""):
    """Five pictures in a viewer. The host runs what it has run before no second time, so a test that deletes them has a caption of its own."""
    return {
        "1": {"class_type": "SparseDictLoadImageSet", "inputs": {"folder": "demo: zorp", "caption": caption, "word": "zorp"}},
        "2": {"class_type": "SparseDictSweepViewer", "inputs": {"images": ["1", 0], "labels": ["1", 1]}},
    }


SWEEP = sweep()


def run_sweep(page, server, caption):
    """Shows a sweep of its own and runs it. An earlier one of the same graph may be shown before; its pictures are others."""
    open_prompt(page, sweep(caption), "SparseDictSweepViewer")
    before = server.finished()
    queue(page)
    first = server.result(server.next_finished(before))["2"]["sparsedict_sweep"][0]["filename"]
    page.wait_for_function("name => document.querySelector('.sd-stage img')?.src.includes(name)", arg=first)


@pytest.mark.parametrize("vue", [False, True])
def test_the_sweep_viewer_moves_through_the_pictures_and_exports_them(page, server, vue):
    open_prompt(page, SWEEP, "SparseDictSweepViewer")
    set_nodes_2(page, vue)
    try:
        open_prompt(page, SWEEP, "SparseDictSweepViewer")
        before = server.finished()
        queue(page)
        page.wait_for_function(f"() => {VIEWER}.count() === 5")
        page.wait_for_function("() => [...document.querySelectorAll('.sd-stage img')].every(picture => picture.naturalWidth > 0)")
        settle(page)
        assert page.evaluate(f"() => {VIEWER}.at()") == 4
        box = page.locator(".sd-scrub").bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] / 2, steps=4)
        page.mouse.up()
        assert page.evaluate(f"() => {VIEWER}.at()") == 1
        assert page.locator(".sd-stage img.sd-shown").count() == 1
        shown = server.result(server.next_finished(before))["2"]["sparsedict_sweep"]
        assert page.locator(".sd-panel .sd-cut").inner_text() == shown[1]["label"]
        slider = page.get_by_role("slider", name="Step of the sweep")
        slider.focus()
        page.keyboard.press("End")
        page.keyboard.press("ArrowLeft")
        assert page.evaluate(f"() => {VIEWER}.at()") == 3
        with page.expect_download() as download:
            page.get_by_role("button", name="Export GIF").click()
        with Image.open(download.value.path()) as animation:
            assert (animation.format, animation.n_frames) == ("GIF", 5)
    finally:
        set_nodes_2(page, False)


PROBE = {
    "1": made("SparseDictDemoModel"),
    "2": made("SparseDictLoad", file=FILE),
    "3": made("SparseDictScaleAtoms", sparse_dict=["2", 0], gains="L0=0"),
    "4": made("SparseDictApply", model=["1", 0], sparse_dict=["3", 0], strength=1.0, start_percent=0.0, end_percent=1.0),
    "5": made("CLIPTextEncode", text="a flat fox", clip=["1", 1]),
    "6": made("SparseDictDemoLatent", batch_size=1),
    "7": made("SparseDictProbe", model=["4", 0], positive=["5", 0], latent_image=["6", 0], seed=1, steps=2, cfg=1.0, sampler_name="euler", scheduler="simple",
              denoise=1.0, top=3, which=-1),
    "8": made("SparseDictSelectAtoms", sparse_dict=["7", 0], **{**SELECT, "mode": "top", "top": 7}),
    "9": made("PreviewAny", source=["8", 1]),
}  # fmt: skip
SELECTOR = "app.graph._nodes.find(node => node.type === 'SparseDictSelectAtoms')?.sparsedictSelector"


LORA = {
    "1": made("SparseDictDemoModel"),
    "2": made("SparseDictFromLora", model=["1", 0], lora="demo: zorp", rank=64, allow_part=False),
    "3": made("SparseDictSelectAtoms", sparse_dict=["2", 0], **{**SELECT, "mode": "top", "top": 7}),
    "4": made("PreviewAny", source=["3", 1]),
}  # fmt: skip


def test_select_atoms_shows_the_atoms_of_a_lora(page, server):
    open_prompt(page, LORA, "SparseDictSelectAtoms")
    page.get_by_text("The LoRA is taken apart when this runs").wait_for()
    before = server.finished()
    queue(page)
    page.wait_for_function(f"() => {SELECTOR}.kept() === 7")
    outputs = server.result(server.next_finished(before))
    assert page.get_by_role("textbox", name="Atoms by address").input_value() == outputs["4"]["text"][0]
    assert "of 352 ·" in page.locator(".sd-panel").inner_text()


def test_select_atoms_shows_what_the_probe_before_it_has_found(page, server):
    make_file(server.base / "models" / "sparse_dicts" / FILE)
    total = load(server.base / "models" / "sparse_dicts" / FILE).atom_count
    open_prompt(page, PROBE, "SparseDictSelectAtoms")
    page.wait_for_function(f"() => {SELECTOR}.kept() === 7")
    assert page.get_by_text("importance for the prompt").count() == 0
    before = server.finished()
    queue(page)
    page.get_by_text("importance for the prompt").wait_for()
    outputs = server.result(server.next_finished(before))
    probed = json.loads(server.file(outputs["7"]["sparsedict_probe"][0]).read_text(encoding="utf-8"))
    # What it says it keeps is what the node has kept, by the prompt's importance.
    assert page.get_by_role("textbox", name="Atoms by address").input_value() == outputs["9"]["text"][0]
    assert not outputs["9"]["text"][0].startswith("L0")
    assert f"of {total - 8 * sum(site['layer'] == 0 for site in probed['sites'])} ·" in page.locator(".sd-panel").inner_text()

    def point_at_the_strongest():
        best = probed["maps"][0]
        page.evaluate(
            f"""address => {{ const {{ map }} = {SELECTOR}, [label, id] = address.split("["), site = map.table.sites.find(each => each.label === label);
            const atom = site.first + Array.from(map.table.ids.slice(site.first, site.first + site.size)).indexOf(parseInt(id)), {{ x, y }} = map.centreOf(atom);
            const box = map.canvas.getBoundingClientRect(), zoom = box.width / map.canvas.offsetWidth; window.pointed = [box.left + x * zoom, box.top + y * zoom]; }}""",
            best["address"],
        )
        page.mouse.move(*page.evaluate("() => window.pointed"))
        picture = page.get_by_role("img", name="Where in the picture the atom fires")
        picture.wait_for()
        assert page.locator(".sd-tip b").inner_text() == best["address"] and "of the tokens" in page.locator(".sd-tip").inner_text()
        assert picture.evaluate("picture => [picture.width, picture.height]") == [best["width"], best["height"]]
        colours = "canvas => new Set(new Uint32Array(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size"
        assert picture.evaluate(colours) > 3

    settle(page)
    point_at_the_strongest()
    # An atom that was taken out before has no map.
    page.mouse.move(*page.evaluate(f"() => {{ const {{ map }} = {SELECTOR}, box = map.canvas.getBoundingClientRect(), {{ x, y }} = map.centreOf(0), zoom = box.width / map.canvas.offsetWidth; return [box.left + x * zoom, box.top + y * zoom]; }}"))
    page.get_by_text("left out before").wait_for()
    assert page.get_by_role("img", name="Where in the picture the atom fires").is_hidden()
    reload_with_the_graph(page, server, "SparseDictSelectAtoms")
    page.get_by_text("importance for the prompt").wait_for()
    settle(page)
    point_at_the_strongest()
    # With other atoms on the model, the probe's answer is out of date until it runs again.
    page.evaluate("() => { app.graph._nodes.find(node => node.type === 'SparseDictScaleAtoms').widgets[0].value = 'L1=0'; }")
    page.get_by_text("importance for the prompt").wait_for(state="hidden")


def reload_with_the_graph(page, server, kind):
    """As a person reloads the page; the host brings the graph back by itself, once it has noticed it."""
    page.wait_for_timeout(2500)
    page.wait_for_function(
        "kind => [...Object.values(localStorage), ...Object.values(sessionStorage)].some(text => text.includes(kind) && text.includes(app.graph.id))", arg=kind
    )
    start(page, server)
    page.wait_for_function("kind => app.graph._nodes.some(node => node.type === kind)", arg=kind)


def test_the_sweep_is_shown_again_after_a_reload(page, server):
    run_sweep(page, server, "two {word}")
    first = page.evaluate("() => document.querySelector('.sd-stage img').src")
    reload_with_the_graph(page, server, "SparseDictSweepViewer")
    page.wait_for_function(f"() => {VIEWER}.count() === 5")
    assert page.evaluate("() => document.querySelector('.sd-stage img').src") == first
    # Another workflow, whose viewer has the same number, has not run.
    page.evaluate("async () => { const graph = app.graph.serialize(); graph.id = crypto.randomUUID(); await app.loadGraphData(graph); }")
    page.wait_for_timeout(1000)
    assert page.evaluate(f"() => {VIEWER}.count()") == 0


def test_after_a_reload_a_sweep_whose_pictures_are_gone_waits_for_the_next_run(page, server):
    run_sweep(page, server, "one {word}")
    for path in (server.base / "temp").glob("sparsedict_sweep*"):
        path.unlink()
    reload_with_the_graph(page, server, "SparseDictSweepViewer")
    page.get_by_text("The sweep's pictures appear here once it has run.").wait_for(state="attached")
    page.wait_for_timeout(1000)
    assert page.evaluate(f"() => {VIEWER}.count()") == 0
    page.troubles[:] = [trouble for trouble in page.troubles if "404" not in trouble]


def test_a_gif_of_pictures_that_are_gone_is_explained(page, server):
    run_sweep(page, server, "some {word}")
    for path in (server.base / "temp").glob("sparsedict_sweep*"):
        path.unlink()
    page.get_by_role("button", name="Export GIF").click()
    page.get_by_text("run the sweep again").wait_for()
    page.troubles[:] = [trouble for trouble in page.troubles if "404" not in trouble]
