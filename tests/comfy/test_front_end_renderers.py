"""The panels in both of the host's renderers: their widths, their one switch for settings, the map of a large file, and what a training leaves."""

import pytest
from host import PROJECT
from large_files import sdxl_like
from PIL import Image
from test_front_end_runs import MONITOR, SELECTOR, open_prompt, queue, wait_until_idle
from test_nodes_over_http import SELECT
from test_nodes_over_http import node as made
from test_train_node import graph as train_graph

from sparsedict.tools.browser import set_nodes_2, set_setting, settle

LARGE = "sdxl.safetensors"
WINDOWS_PATH = "C:\\Users\\someone with a long name\\" + "a folder\\" * 17 + "concept.safetensors"
#: As many as there are files that put one on a node.
PANELS = sum("addPanel(node" in path.read_text(encoding="utf-8") for path in (PROJECT / "web").glob("*_node.js"))
RENDERERS = pytest.mark.parametrize("nodes_2", [False, True], ids=["canvas", "nodes 2.0"], indirect=True)


@pytest.fixture
def nodes_2(request, page, server):
    open_prompt(page, {"1": made("SparseDictSweepViewer", images=["2", 0]), "2": made("SparseDictLoadImageSet", folder="demo: zorp", caption="", word="")}, "SparseDictSweepViewer")
    set_nodes_2(page, request.param)
    yield request.param
    set_nodes_2(page, False)


@pytest.fixture(scope="module")
def large(server):
    sdxl_like(server.base / "models" / "sparse_dicts" / LARGE)
    return LARGE


def tell_long_texts(page):
    """What a run may say at its longest."""
    page.evaluate(
        """path => { const node = app.graph._nodes.find(node => node.type === "SparseDictTrain"), monitor = node.sparsedictMonitor, run = { node: String(node.id), prompt: "p" };
        monitor.note({ ...run, event: "stage", stage: "quiet samples", detail: "96 pictures of the base itself at 1024×1024, cached in " + path });
        monitor.note({ ...run, event: "warning", text: "a warning about " + path });
        for (const step of [1, 2]) monitor.note({ ...run, event: "step", step, steps: 300000, loss: 0.123456, smoothed_loss: 0.123456, density: 0.123456,
          target_density: 0.123456, dead_atoms: 1234567, learning_rate: 0.000512, seconds_left: 360000 });
        monitor.note({ ...run, event: "stage", stage: "importance", detail: path });
        monitor.note({ ...run, event: "finished", path, file: null, stopped: 2, steps: 300000 }); }""",
        WINDOWS_PATH,
    )


def monitor_texts(page, *events):
    """What the monitor shows after some events of a run: in its first row, the time left, and the names that are cut off or lie outside of the panel."""
    return page.evaluate(
        """async events => { const node = app.graph._nodes.find(node => node.type === "SparseDictTrain"), run = { node: String(node.id), prompt: "p" };
        for (const event of events) node.sparsedictMonitor.note({ ...run, ...event });
        await new Promise(frame => requestAnimationFrame(() => requestAnimationFrame(frame)));
        const panel = document.querySelector("[aria-label='Training monitor']"), file = panel.querySelector(".sd-aside"), box = panel.getBoundingClientRect();
        const cut = file.scrollWidth > file.clientWidth || file.scrollHeight > file.clientHeight || file.getBoundingClientRect().right > box.right + 1 || panel.scrollHeight > box.height / app.canvas.ds.scale + 1;
        return { head: panel.querySelector(".sd-headline").textContent, aside: file.textContent, title: file.title, left: panel.querySelector(".sd-figure:last-child b").textContent, cut }; }""",
        list(events),
    )


@RENDERERS
def test_the_monitor_tells_the_time_of_quiet_samples_and_the_whole_name_of_a_file(page, nodes_2):
    open_prompt(page, train_graph("told"), "SparseDictTrain")
    seen = monitor_texts(page, {"event": "stage", "stage": "quiet samples", "detail": "96 pictures"}, {"event": "progress", "stage": "quiet samples", "done": 12, "total": 96, "seconds_left": 70.2})
    assert (seen["head"], seen["aside"], seen["left"]) == ("quiet samples", "12 / 96", "70 s")
    step = {"event": "step", "step": 20, "steps": 3000, "loss": 1, "smoothed_loss": 1, "density": 0.1, "target_density": 0.1, "dead_atoms": 0, "learning_rate": 1e-3, "seconds_left": 9}
    end = {"event": "finished", "path": "/models/sparse_dicts/sub/zorp.safetensors", "file": "sub/zorp.safetensors", "stopped": 20, "steps": 3000}
    seen = monitor_texts(page, step, end)
    assert (seen["aside"], seen["title"], seen["left"], seen["cut"]) == ("kept as sub/zorp.safetensors", end["path"], "–", False)
    seen = monitor_texts(page, step, {**end, "file": "a folder/" + "zorp" * 20 + " 2.safetensors"})
    assert seen["aside"].startswith("kept as a folder/zorp") and seen["aside"].endswith("zorp 2.safetensors") and "…" in seen["aside"] and not seen["cut"]


def show_long_texts(page, server):
    """Pictures whose labels are as long as labels get."""
    (server.base / "temp").mkdir(exist_ok=True)
    Image.new("RGB", (96, 64), "teal").save(server.base / "temp" / "sparsedict_long.png")
    page.evaluate(
        """path => { const of = type => app.graph._nodes.find(node => node.type === type), frame = { filename: "sparsedict_long.png", subfolder: "", type: "temp", label: path };
        of("SparseDictSweepViewer").sparsedictViewer.set([frame, frame]); of("SparseDictCompare").sparsedictComparer.set([frame, frame, frame]); }""",
        WINDOWS_PATH,
    )


WIDER = """() => [...document.querySelectorAll(".sd-panel")].flatMap(panel => {
  const { left, right } = panel.getBoundingClientRect(), zoom = app.canvas.ds.scale;
  const own = panel.closest("[data-node-id]"), widest = own ? own.getBoundingClientRect().width : Math.max(...app.graph._nodes.map(node => node.size[0] * zoom));
  const out = [...panel.querySelectorAll("*")].filter(each => each.checkVisibility() && !each.closest(".sd-spoken, .sd-tip, .sd-cut, .sd-figure, .sd-aside"))
    .filter(each => { const box = each.getBoundingClientRect(); return box.width && (box.right > right + 1.5 || box.left < left - 1.5); });
  return [...(right - left > widest ? [`${panel.ariaLabel}: ${right - left} of ${widest}`] : []), ...out.map(each => `${panel.ariaLabel}: ${each.className} ${each.textContent}`)]; })"""


@RENDERERS
def test_no_text_decides_a_panels_width(page, server, large, nodes_2):
    prompt = {
        **train_graph("wide"),
        "6": made("SparseDictLoad", file=large),
        "7": made("SparseDictSelectAtoms", sparse_dict=["6", 0], **SELECT),
        "8": made("SparseDictSweepViewer", images=["2", 0]),
        "9": made("SparseDictCompare", base=["2", 0], selection=["2", 0]),
    }
    for language in ("en", "ja", "zh"):
        set_setting(page, "Comfy.Locale", language)
        try:
            open_prompt(page, prompt, "SparseDictTrain")
            page.wait_for_function(f"() => {SELECTOR}.kept() !== null")
            page.evaluate("() => { for (const node of app.graph._nodes) node.setSize([Math.max(node.computeSize()[0], 400), node.size[1]]); }")
            tell_long_texts(page)
            show_long_texts(page, server)
            settle(page)
            # All that there are: a new panel is to be measured here too.
            assert page.locator(".sd-panel").count() == PANELS
            assert page.evaluate(WIDER) == [], language
        finally:
            set_setting(page, "Comfy.Locale", "en")


@RENDERERS
def test_one_switch_shows_all_settings_and_hides_them_again(page, server, nodes_2):
    open_prompt(page, train_graph("switched", steps=7), "SparseDictTrain")
    # All of the node stays in sight, also when it is at its tallest.
    page.evaluate("() => { const { ds } = app.canvas; ds.offset = ds.offset.map((each, i) => each + [120, 160][i] * (1 / 0.4 - 1 / ds.scale)); ds.scale = 0.4; app.canvas.setDirty(true, true); }")
    settle(page)
    ours = page.get_by_role("button", name="All settings")
    own = page.locator("[data-node-id]").filter(has=page.get_by_role("group", name="Training monitor"))
    hosts = own.get_by_test_id("advanced-inputs-button")
    assert ours.is_visible() + (hosts.count() and hosts.is_visible()) == 1
    field = "() => { const field = app.graph._nodes.find(node => node.type === 'SparseDictTrain').widgets.find(field => field.name === 'guidance');"
    shown = (
        "() => document.querySelector('[data-node-id] .sd-panel').closest('[data-node-id]').innerText.includes('guidance')" if nodes_2 else f"{field} return !field.hidden; }}"
    )
    assert not page.evaluate(shown)
    before = page.evaluate("async () => (await app.graphToPrompt()).output")
    (ours if ours.is_visible() else hosts).click()
    page.wait_for_function(shown)
    settle(page)
    # The panel is still there, below the fields.
    assert page.get_by_role("group", name="Training monitor").is_visible()
    back = page.get_by_role("button", name="Fewer settings")
    (back if back.count() and back.is_visible() else hosts).click()
    page.wait_for_function(f"() => !({shown})()")
    assert page.evaluate("async () => (await app.graphToPrompt()).output") == before


def test_the_selector_grows_with_its_rows_and_then_scrolls(page, server, large):
    open_prompt(page, {"1": made("SparseDictLoad", file=large), "2": made("SparseDictSelectAtoms", sparse_dict=["1", 0], **{**SELECT, "mode": "addresses", "atoms": ""})}, "SparseDictSelectAtoms")
    page.wait_for_function(f"() => {SELECTOR}.kept() === 0")
    page.evaluate("() => { app.canvas.ds.scale = 1; app.canvas.ds.offset = [-app.graph._nodes[1].pos[0] + 100, -app.graph._nodes[1].pos[1] + 100]; app.canvas.setDirty(true, true); }")
    settle(page)
    map = f"{SELECTOR}.map"
    row, seen, all_rows = page.evaluate(f"() => [{map}.box.height / {map}.rows, {map}.element.clientHeight, {map}.element.scrollHeight]")
    assert row >= 10 and 300 < seen < 600 < all_rows
    # The stacks of the model are named, and an atom says in which block it is.
    assert page.evaluate(f"() => {map}.bands.map(band => band.name)") == ["IN", "MID", "OUT"]
    box = page.locator("canvas.sd-map").bounding_box()
    page.mouse.move(box["x"] + 150, box["y"] + 30)
    page.locator(".sd-tip b").get_by_text("IN04").wait_for()
    # By keyboard to the last row, which comes into view and can be painted.
    page.locator("canvas.sd-map").focus()
    for _ in range(14):
        page.keyboard.press("PageDown")
    page.keyboard.press("Space")
    assert page.evaluate(f"() => {map}.element.scrollTop") > 300 and page.evaluate(f"() => {SELECTOR}.value().atoms") == "L69.cross[" + str(page.evaluate(f"() => {map}.table.ids[{map}.atomOf({map}.cursor)]")) + "]"
    box = page.locator("canvas.sd-map").bounding_box()
    page.mouse.click(box["x"] + 200, box["y"] + box["height"] - 40)
    assert page.evaluate(f"() => {SELECTOR}.kept()") == 2 and page.evaluate(f"() => {SELECTOR}.value().atoms").startswith("L6")


@pytest.mark.parametrize("nodes_2", [True], indirect=True)
def test_no_label_of_the_first_nodes_is_cut_in_nodes_2(page, nodes_2):
    open_prompt(page, {"1": made("SparseDictLoadImageSet", folder="demo: zorp", caption="", word=""), "2": made("SparseDictAtomSweep")}, "SparseDictLoadImageSet")
    page.wait_for_function("() => document.querySelectorAll('.lg-node-widget').length > 5")
    cut = """() => [...document.querySelectorAll("[data-node-id] .lg-node-widget *")].filter(each => !each.children.length && each.scrollWidth > each.clientWidth + 1 && each.textContent).map(each => each.textContent)"""
    assert page.evaluate(cut) == []


COMPARER = "app.graph._nodes.find(node => node.type === 'SparseDictCompare')?.sparsedictComparer"


@RENDERERS
def test_the_dividers_of_compare_follow_pointer_and_keys(page, server, nodes_2):
    pictures = made("SparseDictLoadImageSet", folder="demo: zorp", caption="a {word}", word="zorp")
    prompt = {"1": pictures, "2": made("SparseDictCompare", base=["1", 0], all_atoms=["1", 0], selection=["1", 0])}
    open_prompt(page, prompt, "SparseDictCompare")
    queue(page)
    page.wait_for_function(f"() => {COMPARER}.count() === 3")
    page.wait_for_function("() => [...document.querySelectorAll('.sd-compared img')].every(picture => picture.naturalWidth > 0)")
    settle(page)
    assert page.evaluate(f"() => {COMPARER}.at()") == pytest.approx([1 / 3, 2 / 3])
    box = page.locator(".sd-compared").bounding_box()
    assert box["width"] == pytest.approx(box["height"], abs=1), "a square picture stays square"

    def drag(start, end):
        page.mouse.move(box["x"] + box["width"] * start, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * end, box["y"] + box["height"] / 2, steps=4)
        page.mouse.up()

    before = page.evaluate("() => app.graph._nodes.map(node => [...node.pos])")
    drag(0.3, 0.1)  # the nearest one
    assert page.evaluate(f"() => {COMPARER}.at()") == pytest.approx([0.1, 2 / 3], abs=0.01)
    drag(0.1, 0.9)  # never past its neighbour
    assert page.evaluate(f"() => {COMPARER}.at()") == pytest.approx([2 / 3, 2 / 3], abs=0.01)
    assert page.evaluate("() => app.graph._nodes.map(node => [...node.pos])") == before, "the node is not dragged along"
    divider = page.get_by_role("slider", name="Divider between base and all atoms")
    divider.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(f"() => {COMPARER}.at()[0]") == pytest.approx(0.02) and divider.get_attribute("aria-valuenow") == "2"
    # Each picture is seen between its dividers only.
    assert page.evaluate("() => [...document.querySelectorAll('.sd-compared img')].map(picture => picture.style.clipPath)")[0] == "inset(0px 98% 0px 0%)"
    wait_until_idle(page, server)


def test_after_a_training_in_the_same_graph_its_atoms_are_there_and_its_file_is_in_the_lists(page, server):
    prompt = {**train_graph("fills itself", steps=3), "6": made("SparseDictSelectAtoms", sparse_dict=["3", 0], **SELECT)}
    open_prompt(page, prompt, "SparseDictSelectAtoms")
    page.get_by_text("trained when this runs").wait_for()
    queue(page)
    page.wait_for_function(f"() => {SELECTOR}.kept() > 0")
    page.wait_for_function(
        """() => { const node = LiteGraph.createNode("SparseDictLoad"); return node.widgets[0].options.values.includes("fills itself.safetensors"); }"""
    )
    wait_until_idle(page, server)


def test_a_cancelled_training_says_what_was_kept_and_nothing_is_red(page, server):
    open_prompt(page, train_graph("cancelled here", steps=3000, checkpoint_every=1000), "SparseDictTrain")
    queue(page)
    page.wait_for_function(f"() => {MONITOR}.points() > 2")
    server.interrupt()
    page.get_by_text("kept as cancelled here.safetensors").wait_for()
    wait_until_idle(page, server)
    page.wait_for_timeout(500)
    assert page.get_by_text("Stopped at step").is_visible() and page.locator(".p-dialog").count() == 0
    assert page.evaluate("() => !app.graph._nodes.some(node => node.has_errors)") and page.locator(".sd-message").inner_text() == ""
