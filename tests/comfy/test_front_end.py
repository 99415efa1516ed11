"""The pack's panels in a real Chromium, on the real host's front end."""

import shutil
import time

import pytest
import torch
from test_nodes_over_http import FILE, make_file
from test_train_node import graph as train_graph

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.file_format import load, save
from sparsedict.sparsedict_core.selection import Selection, select
from sparsedict.sparsedict_core.site import SiteName, SparseSite

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
PATIENCE = 120_000  # milliseconds; a loaded machine takes its time
BIG = "big.safetensors"


@pytest.fixture(scope="module")
def page(server, tmp_path_factory):
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium here (Debian: apt install chromium)")
    folder = server.base / "models" / "sparse_dicts"
    make_file(folder / FILE)
    make_big(folder / BIG)
    for setting in ("Comfy.TutorialCompleted", "Comfy.VueNodes.Banner"):
        server.post(f"/settings/{setting}", True)
    server.post("/settings/Comfy.Minimap.Visible", False)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("chromium")), executable_path=program, args=FLAGS, viewport={"width": 1100, "height": 900}
        )
        page = browser.pages[0]
        page.set_default_timeout(PATIENCE)
        page.troubles = []
        page.on("pageerror", lambda error: page.troubles.append(str(error)))
        page.on("console", lambda message: page.troubles.append(message.text) if ours(message) else None)
        start(page, server)
        yield page
        browser.close()


def ours(message):
    # The front end logs troubles of its own, as of addresses on the internet that it cannot reach.
    url = (message.location or {}).get("url", "")
    return message.type in ("error", "warning") and url.startswith("http://127.0.0.1") and "sparsedict" in f"{message.text} {url}".lower()


def start(page, server):
    page.goto(f"http://127.0.0.1:{server.port}", wait_until="domcontentloaded")
    page.wait_for_function("() => !!(window.app?.graph && window.LiteGraph?.registered_node_types?.SparseDictTrain)")
    page.wait_for_timeout(1500)


def workflow(file, values=None):
    return {
        "last_node_id": 3, "last_link_id": 2, "groups": [], "config": {}, "extra": {}, "version": 0.4,
        "nodes": [
            {"id": 1, "type": "SparseDictLoad", "pos": [20, 60], "size": [280, 80], "flags": {}, "order": 0, "mode": 0, "inputs": [],
             "outputs": [{"name": "result", "type": "SPARSE_DICT", "links": [1]}, {"name": "trigger_words", "type": "STRING", "links": None}],
             "properties": {}, "widgets_values": [file]},
            {"id": 2, "type": "SparseDictSelectAtoms", "pos": [340, 60], "size": [520, 640], "flags": {}, "order": 1, "mode": 0,
             "inputs": [{"name": "sparse_dict", "type": "SPARSE_DICT", "link": 1}],
             "outputs": [{"name": "result", "type": "SPARSE_DICT", "links": []}, {"name": "addresses", "type": "STRING", "links": None},
                         {"name": "count", "type": "INT", "links": [2]}],
             "properties": {}, "widgets_values": values or ["share", 0.25, 64, 0.01, "", "importance", False, "", False, False]},
            {"id": 3, "type": "PreviewAny", "pos": [20, 220], "size": [280, 100], "flags": {}, "order": 2, "mode": 0,
             "inputs": [{"name": "source", "type": "*", "link": 2}], "outputs": [], "properties": {}, "widgets_values": []},
        ],
        "links": [[1, 1, 0, 2, 0, "SPARSE_DICT"], [2, 2, 2, 3, 0, "INT"]],
    }  # fmt: skip


def open_workflow(page, graph, ready="() => app.graph.getNodeById(2)?.sparsedictSelector?.kept() != null"):
    page.evaluate("async graph => { await app.loadGraphData(graph); app.canvas.ds.scale = 1; app.canvas.ds.offset = [40, 90]; app.canvas.setDirty(true, true); }", graph)
    page.wait_for_function(ready)
    page.wait_for_timeout(600)


def choice(page):
    """The inputs of Select Atoms in the prompt that would be queued."""
    return page.evaluate("async () => (await app.graphToPrompt()).output['2'].inputs")


def kept(page):
    return page.evaluate("() => app.graph.getNodeById(2).sparsedictSelector.kept()")


def cell(page, row, column):
    """Where a cell of the map is on the screen."""
    return page.evaluate(
        """([row, column]) => { const map = app.graph.getNodeById(2).sparsedictSelector.map, { x, y } = map.centreOf(map.atomOf({ row, column }));
        const box = map.canvas.getBoundingClientRect(), zoom = box.width / map.canvas.offsetWidth; return [box.left + x * zoom, box.top + y * zoom]; }""",
        [row, column],
    )


def test_the_slider_and_a_click_go_into_the_prompt_and_the_host_keeps_that_many(page, server):
    open_workflow(page, workflow(FILE))
    adapter = load(server.base / "models" / "sparse_dicts" / FILE)
    assert kept(page) == select(adapter, Selection(keep=0.25)).kept
    box = page.locator("canvas.sd-slider").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 30, steps=4)
    page.mouse.up()
    dragged = choice(page)
    assert dragged["mode"] == "share" and 0 < dragged["share"] < 0.25 and kept(page) == select(adapter, Selection(keep=dragged["share"])).kept
    before = kept(page)
    page.mouse.click(*cell(page, 1, 7))  # the least important atom of a site
    clicked = choice(page)
    assert clicked["mode"] == "addresses" and kept(page) == before + 1 == select(adapter, Selection(atoms=clicked["atoms"])).kept
    assert set(clicked) == {"sparse_dict", "mode", "share", "top", "threshold", "atoms", "order", "per_site", "layers", "invert", "refit"}
    seen = set(server.get("/history"))
    page.evaluate("() => app.queuePrompt(0, 1)")
    deadline = time.monotonic() + 60
    while not (new := set(server.get("/history")) - seen):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    prompt = new.pop()
    assert server.wait(prompt)["prompt"][2]["2"]["inputs"]["atoms"] == clicked["atoms"]
    assert server.result(prompt)["3"]["text"] == [str(before + 1)]


def test_the_choice_survives_a_reload(page, server):
    open_workflow(page, workflow(FILE, ["addresses", 0.5, 3, 0.01, "L0.image[1-3]", "importance", False, "", False, False]))
    saved = page.evaluate("() => app.graph.serialize()")
    assert saved["nodes"][1]["widgets_values"][4] == "L0.image[1-3]" or any("L0.image[1-3]" in str(node.get("widgets_values")) for node in saved["nodes"])
    start(page, server)
    open_workflow(page, saved)
    assert choice(page)["atoms"] == "L0.image[1-3]" and kept(page) == 3


def test_by_keyboard_alone(page):
    open_workflow(page, workflow(FILE, ["addresses", 0.5, 3, 0.01, "", "importance", False, "", False, False]))
    page.locator("canvas.sd-map").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    assert kept(page) == 2
    page.keyboard.press("/")
    page.keyboard.type("L1.image[0-3]")
    page.keyboard.press("Enter")
    assert choice(page)["atoms"] == "L1.image[0-3]" and kept(page) == 4


def test_the_hosts_undo_takes_a_change_back(page):
    open_workflow(page, workflow(FILE))
    page.get_by_role("button", name="10%").click()
    assert choice(page)["share"] == 0.1
    page.wait_for_timeout(300)
    page.evaluate("() => app.extensionManager.workflow.activeWorkflow.changeTracker.undo()")
    page.wait_for_function("async () => (await app.graphToPrompt()).output['2'].inputs.share === 0.25")


def test_a_missing_file_is_named_and_the_choice_shown(page):
    open_workflow(page, workflow("gone.safetensors"), "() => document.querySelector('.sd-empty')?.textContent.includes('gone.safetensors')")
    assert "25 % of the atoms" in page.locator(".sd-panel").inner_text()
    # The browser itself logs the 404 of the route.
    page.troubles[:] = [trouble for trouble in page.troubles if "404" not in trouble]


def test_twenty_thousand_atoms_stay_smooth(page):
    open_workflow(page, workflow(BIG))
    milliseconds = page.evaluate(
        """() => { const map = app.graph.getNodeById(2).sparsedictSelector.map, times = [];
        for (let i = 0; i < 40; i++) { map.hover = { row: i % 40, column: i * 7 }; map.mask = map.mask.slice(); map.mask[i] ^= 1; map.stale = true; const start = performance.now(); map.draw(); times.push(performance.now() - start); }
        return times.sort((a, b) => a - b)[20]; }"""
    )
    assert milliseconds < 50  # 60 frames a second where nothing else runs; this machine has no graphics


def test_nodes_2_shows_the_same_panel(page):
    page.evaluate("() => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', true)")
    try:
        open_workflow(page, workflow(FILE))
        page.get_by_role("button", name="50%").click()
        assert choice(page)["share"] == 0.5
        assert page.locator("canvas.sd-map").bounding_box()["height"] > 100
    finally:
        page.evaluate("() => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', false)")


def test_the_monitor_draws_a_run_and_knows_it_after_a_reload(page, server):
    page.evaluate("async prompt => { app.loadApiJson(prompt, 'train'); }", train_graph("watched", steps=6))
    monitor = "[...app.graph._nodes].find(node => node.type === 'SparseDictTrain')?.sparsedictMonitor"
    page.wait_for_function(f"() => !!{monitor}")
    page.evaluate("() => app.queuePrompt(0, 1)")
    page.wait_for_function(f"() => {monitor}.points() > 0")
    page.get_by_text("Trained", exact=True).wait_for()
    assert page.get_by_text("The loss is drawn here while it trains.").is_hidden() and page.locator("img.sd-preview").is_hidden()
    job = server.get("/sparsedict/train")
    assert job["finished"].endswith("watched.safetensors") and not job["running"] and job["points"][-1]["step"] == 6
    start(page, server)
    page.evaluate("async prompt => { app.loadApiJson(prompt, 'train'); }", train_graph("watched", steps=6))
    page.wait_for_function(f"() => {monitor}?.points() > 0")


def test_nothing_of_ours_went_wrong_on_the_way(page):
    assert page.troubles == []


def make_big(path):
    generator, config, sites = torch.Generator().manual_seed(0), AdapterConfig(atoms=512, rank=4), []
    for layer in range(40):
        site = SparseSite.create(SiteName(f"transformer.blocks.{layer}.attn.to_out.0", layer), 8, 8, config, generator)
        site.importance = torch.rand(512, generator=generator).pow(6) + 1e-4
        sites.append(site)
    save(SparseAdapter(sites, config, "transformer", {"title": "big"}), path, overwrite=True)
