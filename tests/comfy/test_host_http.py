"""What a front end sees: stock graphs with our nodes, refusals in one sentence, clients beside each other."""

from __future__ import annotations

import pytest
from host import PromptFailed, PromptRefused
from PIL import Image


def demo_graph(caption: str, seed: int = 1, steps: int = 16) -> dict:
    """Stock nodes around the Demo Model."""
    return {
        "demo": {"class_type": "SparseDictDemoModel", "inputs": {}},
        "positive": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["demo", 1], "text": caption}},
        "negative": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["demo", 1], "text": ""}},
        "latent": {"class_type": "SparseDictDemoLatent", "inputs": {"batch_size": 1}},
        "sample": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["demo", 0], "positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["latent", 0],
                "seed": seed, "steps": steps, "cfg": 3.5, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0,
            },
        },
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sample", 0], "vae": ["demo", 2]}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["decode", 0], "filename_prefix": "demo"}},
    }  # fmt: skip


def test_the_pack_loads_without_a_word_of_complaint(server):
    start, _, _ = server.log.partition("To see the GUI go to")  # what other tests make it say comes later
    assert "IMPORT FAILED" not in start and "seconds:" in start
    assert not [line for line in start.splitlines() if "SparseDict" in line and "seconds:" not in line]


def test_a_stock_graph_on_the_demo_model_gives_a_picture(server):
    with server.listen() as client:
        outputs = server.run(demo_graph("a small flat fox top left on forest"), client.id)
    picture = Image.open(server.file(outputs["save"]["images"][0]))
    assert picture.size == (96, 96)
    assert [data["max"] for kind, data in client.events if kind == "progress"][-1] == 16


def test_an_unknown_word_turns_the_text_node_red_with_one_sentence(server):
    with pytest.raises(PromptFailed, match="does not know the word 'wombat'") as failure:
        server.run(demo_graph("a wombat"))
    assert failure.value.node == "positive"


def test_two_clients_at_once_get_their_own_pictures(server):
    with server.listen() as first, server.listen() as second:
        graphs = [demo_graph("a large glossy star on sand", seed=11), demo_graph("a small flat fox on forest", seed=12)]
        ids = [server.queue(graph, client.id) for graph, client in zip(graphs, (first, second))]
        results = [server.result(prompt_id) for prompt_id in ids]
        for client in (first, second):
            client.wait_for("execution_success")
    names = [outputs["save"]["images"][0]["filename"] for outputs in results]
    assert len(set(names)) == 2
    for client, prompt_id in zip((first, second), ids):
        seen = {data["prompt_id"] for kind, data in client.events if kind == "executed"}
        assert seen == {prompt_id}


def test_an_interrupted_sampling_leaves_the_host_ready(server):
    with server.listen() as client:
        prompt_id = server.queue(demo_graph("a large glossy star on sand", seed=13, steps=2000), client.id)
        client.wait_for("progress")
        server.interrupt()
        with pytest.raises(PromptFailed) as failure:
            server.result(prompt_id, timeout=30)
    assert failure.value.interrupted
    assert server.run(demo_graph("a large glossy star on sand", seed=14, steps=2))["save"]["images"]


def test_a_missing_file_is_refused_in_one_sentence_before_anything_runs(server):
    graph = demo_graph("a large glossy star on sand", seed=15)
    graph["dict"] = {
        "class_type": "SparseDictLoader", "inputs": {"model": ["demo", 0], "file": "friends/gone.safetensors", "strength": 1.0, "share": 1.0},
    }  # fmt: skip
    graph["sample"]["inputs"]["model"] = ["dict", 0]
    with pytest.raises(PromptRefused) as refusal:
        server.run(graph)
    assert list(refusal.value.errors) == ["dict"]
    assert [message for message in refusal.value.messages if "gone.safetensors" in message and "models/sparse_dicts" in message]


def test_a_missing_picture_folder_is_refused_in_one_sentence(server):
    graph = {
        "set": {"class_type": "SparseDictLoadImageSet", "inputs": {"folder": "gone", "caption": "", "word": ""}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["set", 0], "filename_prefix": "set"}},
    }
    with pytest.raises(PromptRefused, match="'gone' is no folder in ComfyUI's input folder"):
        server.run(graph)
    graph["set"]["inputs"]["folder"] = "demo: zorp"
    outputs = server.run(graph)
    assert len(outputs["save"]["images"]) == 5


def test_only_what_depends_on_a_changed_widget_runs_again(server):
    first = server.queue(demo_graph("a small ring on clay", seed=21, steps=2))
    assert server.ran(first) >= {"sample", "decode"}
    graph = demo_graph("a small ring on clay", seed=22, steps=2)
    assert server.ran(server.queue(graph)) == {"sample", "decode", "save"}


def test_texts_and_help_pages_reach_the_front_end(server):
    texts = server.get("/i18n")
    for language in ("en", "zh", "ja"):
        assert "SparseDictDemoModel" in texts[language]["nodeDefs"]
    assert server.get("/extensions/SparseDict/docs/SparseDictDemoModel.md").startswith(b"# Demo Model")
    assert server.object_info("SparseDictDemoModel")["python_module"] == "custom_nodes.SparseDict"
