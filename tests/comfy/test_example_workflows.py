"""The example workflows: what the script makes, valid on this host, and run on it as the front end would send them, only shorter."""

import json
import re
from urllib.parse import quote

import pytest
from host import PromptRefused
from PIL import Image

from sparsedict.tools.example_graphs import BLUEPRINT, EXAMPLES, build, train_and_apply
from sparsedict.tools.make_example_workflows import FOLDER, SUBGRAPHS, THUMBNAIL_BYTES, as_text
from sparsedict.tools.node_schema import problem, widgets_of
from sparsedict.tools.ui_workflow import ALWAYS, BARS, MUTED, WINDOW, named_values, to_prompt

NAMES = sorted(EXAMPLES)
OWN = "8 Your own checkpoint"
TASKS = [name for name in NAMES if name != OWN]
IN_ONE_LOOK = ("1 From five pictures to a prompt", "2 A style")  # the whole job
RESULTS = ("SaveImage", "SparseDictCompare", "SparseDictSweepViewer")
OWN_FILES = {("CheckpointLoaderSimple", "ckpt_name")}  # lists of what the user has
SHORT = {
    "SparseDictTrain": {
        "steps": 2, "batch_size": 2, "atoms": 16, "rank": 4, "quiet_samples": 2, "sampling_steps": 1, "preview_prompts": "", "checkpoint_every": 1000,
    },
    "KSampler": {"steps": 1},
    "SparseDictProbe": {"steps": 2},
    "SparseDictAtomSweep": {"count": 3},
    "SparseDictDemoLatent": {"batch_size": 2},
}  # fmt: skip


def read(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def shortened(prompt):
    for node in prompt.values():
        for widget, value in SHORT.get(node["class_type"], {}).items():
            if not isinstance(node["inputs"][widget], list) and not (widget == "batch_size" and node["inputs"][widget] == 1):
                node["inputs"][widget] = value
    return prompt


@pytest.fixture(scope="module")
def object_info(server):
    return server.object_info()


def of_type(nodes, kind):
    return [node for node in nodes if node["type"] == kind]


def test_the_script_makes_the_files(server, object_info):
    if server.get("/system_stats")["system"]["comfyui_version"] != "0.3.75":
        pytest.skip("the files are written for 0.3.75; stock nodes of another host may have more widgets")
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == NAMES
    for name, workflow in build(object_info).items():
        text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
        assert text == as_text(workflow), f"{name}: run `python -m sparsedict.tools.make_example_workflows`"
    assert (SUBGRAPHS / f"{BLUEPRINT}.json").read_text(encoding="utf-8") == as_text(train_and_apply(object_info))


def test_the_front_end_offers_them(server):
    assert sorted(server.get("/workflow_templates")["SparseDict"]) == NAMES
    assert json.loads(json.dumps(server.get(f"/api/workflow_templates/SparseDict/{quote(NAMES[0])}.json"))) == read(NAMES[0])


@pytest.mark.parametrize("name", NAMES)
def test_each_has_a_small_square_thumbnail(name):
    path = FOLDER / f"{name}.jpg"
    assert path.stat().st_size < THUMBNAIL_BYTES
    with Image.open(path) as picture:
        assert picture.format == "JPEG" and picture.width == picture.height >= 256


@pytest.mark.parametrize("name", TASKS)
def test_each_task_is_explained_in_two_sentences(name):
    note = next(of_type_with_text(read(name)))
    body = " ".join(note.split("\n", 1)[1].split())
    assert 1 <= len(re.findall(r"[.!?](?= [A-Z*]|$)", body)) <= 2, body


def of_type_with_text(workflow):
    return (node["widgets_values"][0] for node in workflow["nodes"] if node["type"] == "MarkdownNote")


def has_a_result(group, nodes):
    x, y, width, height = group["bounding"]
    return any(node["type"] in RESULTS and x < node["pos"][0] < x + width and y < node["pos"][1] < y + height for node in nodes)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_to_read_and_a_result_are_seen_at_once_in_letters_that_can_be_read(name):
    workflow = read(name)
    view, groups = workflow["extra"]["ds"], workflow["groups"]
    assert view["scale"] >= 0.6
    seen = groups if name in IN_ONE_LOOK else [groups[0], next(group for group in groups if has_a_result(group, workflow["nodes"]))]
    for x, y, width, height in (group["bounding"] for group in seen):
        left, top = (x + view["offset"][0]) * view["scale"], (y + view["offset"][1]) * view["scale"]
        assert left >= BARS[0] and top >= BARS[1]
        assert left + width * view["scale"] <= WINDOW[0] and top + height * view["scale"] <= WINDOW[1]


@pytest.mark.parametrize("name", NAMES)
def test_none_uses_what_the_host_calls_deprecated(name, object_info):
    assert not [node["type"] for node in read(name)["nodes"] if object_info.get(node["type"], {}).get("deprecated")]


@pytest.mark.parametrize("name", NAMES)
def test_widgets_and_links_are_what_the_host_has(name, object_info):
    workflow = read(name)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for node in nodes.values():
        if node["type"] not in object_info:
            assert node["type"] in ("MarkdownNote", "Reroute")
            continue
        info = object_info[node["type"]]
        # Newer hosts' own nodes have more outputs.
        assert [output["type"] for output in node["outputs"]] == info["output"][: len(node["outputs"])]
        widgets = widgets_of(info)
        for widget, value in named_values(node, info).items():
            if (node["type"], widget) not in OWN_FILES:
                assert problem(value, *widgets[widget]) is None, (node["type"], widget)
    for number, source, output, target, slot, kind in workflow["links"]:
        assert number in nodes[source]["outputs"][output]["links"]
        assert nodes[target]["inputs"][slot]["link"] == number
        assert kind in (nodes[source]["outputs"][output]["type"], "*")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_lies_on_anything(name):
    workflow = read(name)
    boxes = [(node["pos"][0], node["pos"][1] - 30, node["pos"][0] + node["size"][0], node["pos"][1] + node["size"][1]) for node in workflow["nodes"]]
    for index, one in enumerate(boxes):
        for other in boxes[:index]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    groups = [group["bounding"] for group in workflow["groups"]]
    for box in boxes:
        assert any(x <= box[0] and y <= box[1] and box[2] <= x + w and box[3] <= y + h for x, y, w, h in groups)


@pytest.mark.parametrize("name", NAMES)
def test_each_runs_to_its_pictures(name, server, object_info):
    prompt = shortened(to_prompt(read(name), object_info))
    queued = server.queue(prompt)
    outputs = server.result(queued)
    saving = [node for node, entry in prompt.items() if entry["class_type"] == "SaveImage"]
    assert saving
    for node in saving:
        assert outputs[node]["images"]
        for entry in outputs[node]["images"]:
            with Image.open(server.file(entry)) as picture:
                assert min(picture.size) >= 64 and len(set(picture.convert("L").tobytes())) > 16
    # What the example before has shown too comes from the cache.
    shown = [node for node in server.ran(queued) if prompt[node]["class_type"] in ("PreviewImage", "PreviewAny")]
    assert all(outputs[node] for node in shown)


def test_a_sent_graph_has_no_muted_bypassed_or_drawn_nodes(object_info):
    prompt = to_prompt(read(OWN), object_info)
    kinds = {node["class_type"] for node in prompt.values()}
    assert not kinds & {"CheckpointLoaderSimple", "EmptyLatentImage", "FluxGuidance", "Reroute", "MarkdownNote"}
    sampler = next(node for node in prompt.values() if node["class_type"] == "KSampler")
    came_from = {name: prompt[link[0]]["class_type"] for name, link in sampler["inputs"].items() if isinstance(link, list)}
    assert came_from["positive"] == came_from["negative"] == "CLIPTextEncode"
    assert came_from["latent_image"] == "SparseDictDemoLatent"


def test_the_swap_that_the_note_describes_leaves_a_checkpoint_to_choose(server, object_info):
    """Unmute the loader, drag its outputs onto the reroutes: all that is missing is the user's file."""
    workflow = read(OWN)
    loader, latent = of_type(workflow["nodes"], "CheckpointLoaderSimple")[0], of_type(workflow["nodes"], "EmptyLatentImage")[0]
    assert loader["mode"] == latent["mode"] == MUTED
    loader["mode"] = latent["mode"] = ALWAYS
    links = {link[0]: link for link in workflow["links"]}
    sources = {"MODEL": (loader, 0), "CLIP": (loader, 1), "VAE": (loader, 2), "LATENT": (latent, 0)}
    for reroute in of_type(workflow["nodes"], "Reroute"):
        node, output = sources[reroute["outputs"][0]["type"]]
        links[reroute["inputs"][0]["link"]][1:3] = [node["id"], output]
    prompt = to_prompt(workflow, object_info)
    prompt = {node: entry for node, entry in prompt.items() if not entry["class_type"].startswith("SparseDictDemo")}
    assert "SparseDictTrain" in {entry["class_type"] for entry in prompt.values()}
    with pytest.raises(PromptRefused) as refused:
        server.run(prompt)
    assert {error["type"] for node in refused.value.errors.values() for error in node["errors"]} == {"value_not_in_list"}
    assert set(refused.value.errors) == {str(loader["id"])}


def test_the_blueprint_is_offered_and_runs(server, object_info):
    offered = {entry["name"]: key for key, entry in server.get("/global_subgraphs").items()}
    workflow = json.loads(server.get(f"/global_subgraphs/{offered[BLUEPRINT]}")["data"])
    (outer,) = workflow["nodes"]
    # What a user puts around it.
    around = [
        {"id": 2, "type": "SparseDictDemoModel", "mode": ALWAYS, "inputs": [], "outputs": []},
        {"id": 3, "type": "SparseDictLoadImageSet", "mode": ALWAYS, "inputs": [], "outputs": [], "widgets_values": ["demo: zorp", "", "zorp", "files", False]},
        {"id": 4, "type": "PreviewImage", "mode": ALWAYS, "inputs": [{"name": "images", "link": 9}], "outputs": []},
    ]
    sources = {"model": [2, 0], "clip": [2, 1], "vae": [2, 2], "images": [3, 0], "captions": [3, 1]}
    for number, entry in enumerate(outer["inputs"]):
        entry["link"] = number
        workflow["links"].append([number, *sources[entry["name"]], outer["id"], number, entry["type"]])
    workflow["links"].append([9, outer["id"], 2, 4, 0, "IMAGE"])
    promoted = [name for _, name in outer["properties"]["proxyWidgets"]]
    outer["widgets_values"][promoted.index("word")] = "zorp"
    workflow["nodes"] += around
    prompt = to_prompt(workflow, object_info)
    train = next(node for node in prompt.values() if node["class_type"] == "SparseDictTrain")["inputs"]
    apply = next(node for node in prompt.values() if node["class_type"] == "SparseDictApply")["inputs"]
    assert train["word"] == "zorp" and train["model"] == apply["model"] == ["2", 0]
    outputs = server.run(shortened(prompt))
    assert outputs["4"]["images"]
