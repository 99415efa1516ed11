"""The atom selector in a real Chromium, on the real host's front end."""

import json

import pytest
from test_nodes_over_http import FILE, make_file

from sparsedict.benchmarks.host.front_end import many_atoms
from sparsedict.sparsedict_core.file_format import load
from sparsedict.sparsedict_core.gains import resolve_gains
from sparsedict.sparsedict_core.selection import Selection, select
from sparsedict.tools.browser import open_workflow, set_nodes_2, set_setting, settle, start

BIG = "big.safetensors"
SHOWN = "() => app.graph.getNodeById(2)?.sparsedictSelector?.kept() != null"


@pytest.fixture(scope="module")
def folder(server):
    folder = server.base / "models" / "sparse_dicts"
    make_file(folder / FILE)
    many_atoms(folder / BIG)
    return folder


def workflow(file, values=None):
    return {
        "last_node_id": 3, "last_link_id": 2, "groups": [], "config": {}, "extra": {}, "version": 0.4,
        "nodes": [
            {"id": 1, "type": "SparseDictLoad", "pos": [20, 60], "size": [280, 80], "flags": {}, "order": 0, "mode": 0, "inputs": [],
             "outputs": [{"name": "sparse dict", "type": "SPARSE_DICT", "links": [1]}, {"name": "trigger words", "type": "STRING", "links": None}],
             "properties": {}, "widgets_values": [file]},
            {"id": 2, "type": "SparseDictSelectAtoms", "pos": [340, 60], "size": [520, 640], "flags": {}, "order": 1, "mode": 0,
             "inputs": [{"name": "sparse_dict", "type": "SPARSE_DICT", "link": 1}],
             "outputs": [{"name": "sparse dict", "type": "SPARSE_DICT", "links": []}, {"name": "addresses", "type": "STRING", "links": None},
                         {"name": "count", "type": "INT", "links": [2]}],
             "properties": {}, "widgets_values": values or ["share", 0.25, 64, 0.01, "", "importance", False, "", False, False]},
            {"id": 3, "type": "PreviewAny", "pos": [20, 220], "size": [280, 100], "flags": {}, "order": 2, "mode": 0,
             "inputs": [{"name": "source", "type": "*", "link": 2}], "outputs": [], "properties": {}, "widgets_values": []},
        ],
        "links": [[1, 1, 0, 2, 0, "SPARSE_DICT"], [2, 2, 2, 3, 0, "INT"]],
    }  # fmt: skip


def by_address(text):
    return ["addresses", 0.5, 3, 0.01, text, "importance", False, "", False, False]


def choice(page, node="2"):
    """The inputs of Select Atoms in the prompt that would be queued."""
    return page.evaluate("async node => (await app.graphToPrompt()).output[node].inputs", node)


def serialized(page):
    """The workflow as it is saved to a file."""
    return json.loads(page.evaluate("() => JSON.stringify(app.graph.serialize())"))


def kept(page):
    return page.evaluate("() => app.graph.getNodeById(2).sparsedictSelector.kept()")


def cell(page, row, column):
    """Where a cell of the map is on the screen."""
    return page.evaluate(
        """([row, column]) => { const map = app.graph.getNodeById(2).sparsedictSelector.map, { x, y } = map.centreOf(map.atomOf({ row, column }));
        const box = map.canvas.getBoundingClientRect(), zoom = box.width / map.canvas.offsetWidth; return [box.left + x * zoom, box.top + y * zoom]; }""",
        [row, column],
    )


def looks_painted_anew(page):
    """Whether the map, which is repaired where atoms come and go, is as if all of it had been painted; edges of lines may be smoothed otherwise."""
    most = page.evaluate(
        """() => { const { map } = app.graph.getNodeById(2).sparsedictSelector, { base } = map;
        const pixels = () => { map.draw(); return base.getContext("2d").getImageData(0, 0, base.width, base.height).data; };
        const repaired = pixels(); map.stale = true; const anew = pixels();
        return repaired.reduce((most, value, i) => Math.max(most, Math.abs(value - anew[i])), 0); }"""
    )
    return most < 64


def drag_slider(page, to):
    box = page.locator("canvas.sd-slider").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * to, box["y"] + 30, steps=4)
    page.mouse.up()


def test_the_slider_and_a_click_go_into_the_prompt_and_the_host_keeps_that_many(page, server, folder):
    open_workflow(page, workflow(FILE), SHOWN)
    adapter = load(folder / FILE)
    assert kept(page) == select(adapter, Selection(keep=0.25)).kept
    drag_slider(page, 0.5)
    dragged = choice(page)
    assert dragged["mode"] == "share" and 0 < dragged["share"] < 0.25 and kept(page) == select(adapter, Selection(keep=dragged["share"])).kept
    before = kept(page)
    page.mouse.click(*cell(page, 1, 7))  # the least important atom of a site
    clicked = choice(page)
    assert clicked["mode"] == "addresses" and kept(page) == before + 1 == select(adapter, Selection(atoms=clicked["atoms"])).kept
    assert set(clicked) == {"sparse_dict", "mode", "share", "top", "threshold", "atoms", "order", "per_site", "layers", "invert", "refit"}
    # The host brings the graph back after a reload by itself, once it has noticed the change.
    page.wait_for_timeout(2500)
    start(page, server)
    page.wait_for_function(SHOWN)
    assert choice(page) == clicked and kept(page) == before + 1
    done = server.finished()
    page.evaluate("() => app.queuePrompt(0, 1)")
    prompt = server.next_finished(done)
    assert server.wait(prompt)["prompt"][2]["2"]["inputs"]["atoms"] == clicked["atoms"]
    assert server.result(prompt)["3"]["text"] == [str(before + 1)]


def test_the_hosts_sidebar_has_the_fields_that_the_panel_stands_for(page, folder):
    """It shows what has no option `hidden`; newer hosts have one."""
    open_workflow(page, workflow(FILE), SHOWN)
    fields = page.evaluate("() => app.graph.getNodeById(2).widgets.filter(field => field.name !== 'atom_selector').map(field => [field.name, field.hidden, !!field.options.hidden])")
    assert len(fields) >= 10 and all(hidden and not option for _, hidden, option in fields), fields


def test_a_share_finer_than_the_field_shows_stays_as_it_is(page, folder):
    open_workflow(page, workflow(BIG), SHOWN)
    page.locator("canvas.sd-slider").focus()
    page.keyboard.press("Home")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert kept(page) == 3
    share = choice(page)["share"]
    assert 0 < share < 0.001
    open_workflow(page, serialized(page), SHOWN)
    assert choice(page)["share"] == share and kept(page) == 3


def test_a_saved_workflow_brings_the_choice_back(page, folder):
    open_workflow(page, workflow(FILE, by_address("L0.image[1-3]")), SHOWN)
    saved = serialized(page)
    assert any("L0.image[1-3]" in str(node.get("widgets_values")) for node in saved["nodes"])
    open_workflow(page, workflow(FILE), SHOWN)
    open_workflow(page, saved, SHOWN)
    assert choice(page)["atoms"] == "L0.image[1-3]" and kept(page) == 3


def test_drag_paints_and_shift_takes_a_rectangle(page, folder):
    open_workflow(page, workflow(FILE, by_address("")), SHOWN)
    page.mouse.move(*cell(page, 1, 2))
    page.mouse.down()
    page.mouse.move(*cell(page, 1, 5), steps=3)
    page.mouse.up()
    assert kept(page) == 4
    page.keyboard.down("Shift")
    page.mouse.move(*cell(page, 2, 1))
    page.mouse.down()
    page.mouse.move(*cell(page, 3, 4), steps=3)
    page.mouse.up()
    page.keyboard.up("Shift")
    assert kept(page) == 12
    page.mouse.dblclick(*cell(page, 0, 4))
    assert kept(page) == 20 and "L0.image" in choice(page)["atoms"].split(",")


def test_by_keyboard_alone(page, folder):
    open_workflow(page, workflow(FILE, by_address("")), SHOWN)
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
    page.locator("canvas.sd-slider").focus()
    page.keyboard.press("Home")
    assert kept(page) == 0
    page.keyboard.press("End")
    total = kept(page)
    assert total == load(folder / FILE).atom_count
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.textContent") == "50%"
    page.keyboard.press("Enter")
    assert choice(page)["share"] == 0.5 and kept(page) == total // 2


def test_a_wrong_address_is_explained_and_escape_takes_it_back(page, folder):
    open_workflow(page, workflow(FILE, by_address("L1.image[0-3]")), SHOWN)
    field = page.get_by_role("textbox", name="Atoms by address")
    page.locator("canvas.sd-map").focus()
    page.keyboard.press("/")
    page.keyboard.type("L99[1]")
    page.keyboard.press("Enter")
    page.get_by_text("there is no layer L99").wait_for()
    assert choice(page)["atoms"] == "L1.image[0-3]" and kept(page) == 4
    field.focus()
    page.keyboard.press("Escape")
    assert field.input_value() == "L1.image[0-3]" and page.get_by_text("there is no layer L99").count() == 0
    # What was typed and not finished is given up too.
    page.keyboard.press("/")
    page.keyboard.type("L1.text[2]")
    page.keyboard.press("Escape")
    assert field.input_value() == choice(page)["atoms"] == "L1.image[0-3]" and kept(page) == 4


def test_a_field_whose_value_comes_over_a_link_is_not_the_panels(page, folder):
    open_workflow(page, workflow(FILE), SHOWN)
    amount = page.get_by_role("textbox", name="Amount")
    assert amount.is_enabled()
    page.evaluate(
        """() => { const value = LiteGraph.createNode("PrimitiveFloat"), node = app.graph.getNodeById(2); app.graph.add(value);
        value.connect(0, node, node.inputs.findIndex(input => input.name === "share")); }"""
    )
    page.wait_for_function("() => document.querySelector('input.sd-number').disabled")
    assert page.get_by_role("combobox", name="Select by").is_enabled()


def test_the_hosts_undo_takes_a_change_back(page, folder):
    open_workflow(page, workflow(FILE), SHOWN)
    page.get_by_role("button", name="10%").click()
    assert choice(page)["share"] == 0.1
    page.wait_for_timeout(300)
    page.keyboard.press("Control+z")
    page.wait_for_function("async () => (await app.graphToPrompt()).output['2'].inputs.share === 0.25")


def test_a_copied_node_keeps_the_choice(page, folder):
    open_workflow(page, workflow(FILE, by_address("L0.text[2,5]")), SHOWN)
    page.evaluate("() => { app.canvas.selectNode(app.graph.getNodeById(2)); app.canvas.canvas.focus(); }")
    page.wait_for_function("() => app.canvas.selected_nodes[2] !== undefined")
    settle(page)
    page.keyboard.press("Control+c")
    settle(page)  # newer hosts put the copy into the clipboard in their own time
    page.keyboard.press("Control+v")
    page.wait_for_function("() => app.graph._nodes.filter(node => node.type === 'SparseDictSelectAtoms').length === 2")
    copy = page.evaluate("() => app.graph._nodes.filter(node => node.type === 'SparseDictSelectAtoms' && node.id !== 2)[0].id")
    assert {name: value for name, value in choice(page, str(copy)).items() if name != "sparse_dict"} == {
        name: value for name, value in choice(page).items() if name != "sparse_dict"
    }
    page.evaluate("copy => { app.graph.getNodeById(1).connect(0, app.graph.getNodeById(copy), 0); }", copy)
    page.wait_for_function("copy => app.graph.getNodeById(copy).sparsedictSelector.kept() === 2", arg=copy)


def test_what_earlier_nodes_take_out_is_gone(page, folder):
    graph = workflow(FILE)
    graph["nodes"].append(
        {"id": 4, "type": "SparseDictScaleAtoms", "pos": [20, 380], "size": [280, 120], "flags": {}, "order": 1, "mode": 0,
         "inputs": [{"name": "sparse_dict", "type": "SPARSE_DICT", "link": 1}], "outputs": [{"name": "sparse dict", "type": "SPARSE_DICT", "links": [3]}],
         "properties": {}, "widgets_values": ["L0=0, L1.image[2-5]=2, L1.text[0]=0"]}
    )  # fmt: skip
    graph["nodes"][1]["inputs"][0]["link"] = 3
    graph["links"] = [[1, 1, 0, 4, 0, "SPARSE_DICT"], [2, 2, 2, 3, 0, "INT"], [3, 4, 0, 2, 0, "SPARSE_DICT"]]
    open_workflow(page, graph, SHOWN)
    adapter = load(folder / FILE)
    left = int(sum((gains != 0).sum() for gains in resolve_gains(adapter, "L0=0, L1.image[2-5]=2, L1.text[0]=0").values()))
    page.get_by_role("button", name="100%").click()
    assert kept(page) == left < adapter.atom_count


def test_a_missing_file_is_named_and_the_choice_shown(page):
    open_workflow(page, workflow("gone.safetensors"), "() => document.querySelector('.sd-empty')?.textContent.includes('gone.safetensors')")
    assert "25 % of the atoms" in page.locator(".sd-panel").inner_text()
    # The browser itself logs the 404 of the route.
    page.troubles[:] = [trouble for trouble in page.troubles if "404" not in trouble]


def test_twenty_thousand_atoms_can_be_painted(page, folder):
    open_workflow(page, workflow(BIG), SHOWN)
    drag_slider(page, 0.4)
    before = kept(page)
    page.mouse.move(*cell(page, 3, 500))
    page.mouse.down()
    page.mouse.move(*cell(page, 30, 500), steps=8)
    page.mouse.up()
    assert kept(page) == before + 28
    assert looks_painted_anew(page)
    page.keyboard.down("Shift")
    page.mouse.move(*cell(page, 8, 40))
    page.mouse.down()
    page.mouse.move(*cell(page, 31, 300), steps=6)
    assert looks_painted_anew(page)
    page.mouse.move(*cell(page, 12, 90), steps=6)
    page.mouse.up()
    page.keyboard.up("Shift")
    assert looks_painted_anew(page)
    drag_slider(page, 0.6)
    assert looks_painted_anew(page)
    page.mouse.move(*cell(page, 20, 300))
    page.wait_for_function("() => !document.querySelector('.sd-tip').hidden")
    assert page.locator(".sd-tip b").inner_text().startswith("L20[")
    # This file says of no atom how often it fires.
    assert "fires" not in page.locator(".sd-tip").inner_text()


def test_nodes_2_shows_the_same_panel(page, folder):
    open_workflow(page, workflow(FILE), SHOWN)
    set_nodes_2(page, True)
    try:
        open_workflow(page, workflow(FILE), SHOWN)
        page.get_by_role("button", name="50%").click()
        assert choice(page)["share"] == 0.5
        assert page.locator("canvas.sd-map").bounding_box()["height"] > 100
        before = kept(page)
        page.mouse.click(*cell(page, 1, 7))
        assert abs(kept(page) - before) == 1 and choice(page)["mode"] == "addresses"
        drag_slider(page, 0.4)
        assert choice(page)["mode"] == "share" and 0 < choice(page)["share"] < 0.5
    finally:
        set_nodes_2(page, False)


def test_the_panel_speaks_the_hosts_language(page, folder):
    set_setting(page, "Comfy.Locale", "ja")
    try:
        open_workflow(page, workflow(FILE), SHOWN)
        assert "アトム" in page.locator(".sd-headline").inner_text()
        assert page.get_by_role("group", name="アトムセレクター").is_visible()
    finally:
        set_setting(page, "Comfy.Locale", "en")
