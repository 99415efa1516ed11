"""Train Sparse Dict: as a front end uses it, over HTTP, and in this process where a failure has to be made."""

import json
import time

import pytest
import tiny_models
import torch

from sparsedict.sparsedict_core.errors import DataError, FileFormatError, TrainingError
from sparsedict.sparsedict_core.file_format import load

SHORT = {"steps": 4, "batch_size": 4, "atoms": 16, "rank": 4, "quiet_samples": 4, "sampling_steps": 2, "checkpoint_every": 2}


def graph(name, **more):
    """Demo Model → Train on the demo's own pictures."""
    return {
        "1": {"class_type": "SparseDictDemoModel", "inputs": {}},
        "2": {"class_type": "SparseDictLoadImageSet", "inputs": {"folder": "demo: zorp", "caption": "", "word": "zorp"}},
        "3": {
            "class_type": "SparseDictTrain",
            "inputs": {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "images": ["2", 0], "captions": ["2", 1], "name": name, "word": "zorp",
                       "caption": "", "preset": "concept", "effort": "quick", "training_seed": 0, **SHORT, **more},
        },
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 1]}},
        "5": {"class_type": "PreviewAny", "inputs": {"source": ["3", 2]}},
    }  # fmt: skip


def train_events(client):
    return [data for kind, data in client.events if kind == "sparsedict.train"]


def checkpoints(server, name):
    return sorted((server.base / "output" / "sparse_dicts" / f"{name}.checkpoints").glob("*.safetensors"))


@pytest.fixture(scope="module")
def trained(server):
    """A finished run, and what its client heard."""
    with server.listen() as client:
        prompt = server.queue(graph("finished", preview_prompts="a zorp in the center, night", preview_every=2), client.id, "of a tab")
        outputs = server.result(prompt)
        time.sleep(0.3)
    return outputs, client, prompt


def test_a_run_leaves_a_file_a_plot_and_a_log(server, trained):
    outputs, _, _ = trained
    path = server.base / "output" / "sparse_dicts" / "finished.safetensors"
    adapter = load(path)
    assert adapter.metadata["base_family"] == "sd3" and adapter.metadata["trigger_words"] in (["zorp"], "zorp")
    assert server.file(outputs["4"]["images"][0]).stat().st_size > 1000
    log = json.dumps(outputs["5"])
    assert "step 4/4" in log and str(path) in log.replace("\\\\", "\\")


def test_progress_previews_and_events_reach_the_client(server, trained):
    _, client, _ = trained
    events = train_events(client)
    assert all((event["node"], event["workflow"]) == ("3", "of a tab") for event in events)
    job = server.get("/sparsedict/train")
    assert job["workflow"] == "of a tab" and "workflow" not in job["points"][-1] and "workflow" not in job["stage"]
    last = [event for event in events if event["event"] == "step"][-1]
    assert last["step"] == last["steps"] == 4
    assert {"loss", "smoothed_loss", "density", "target_density", "dead_atoms", "learning_rate", "seconds_left"} <= last.keys()
    assert {"quiet samples", "training", "importance"} <= {event["stage"] for event in events if event["event"] == "stage"}
    assert events[-1]["event"] == "finished"
    assert any(kind == "progress" and data["node"] == "3" for kind, data in client.events)
    assert [event["number"] for event in events if event["event"] == "preview"] and server.get("/sparsedict/train")["previews"]
    assert server.get("/sparsedict/train/preview").startswith(b"\xff\xd8\xff")  # a JPEG


def test_the_file_can_be_loaded_at_once_and_no_checkpoint_is_offered(server, trained):
    outputs, _, _ = trained
    offered = server.object_info("SparseDictLoad")["input"]["required"]["file"][1]["options"]
    assert "finished.safetensors" in offered and not [name for name in offered if "checkpoints" in name]
    assert checkpoints(server, "finished") and outputs["3"]["sparsedict_file"] == ["finished.safetensors"]


def test_the_same_graph_is_not_trained_twice(server, trained):
    again = server.queue(graph("finished", preview_prompts="a zorp in the center, night", preview_every=2))
    server.result(again)
    assert "3" not in server.ran(again)


def test_a_name_that_is_taken_gets_a_number(server, trained):
    server.run(graph("finished", steps=1))
    assert load(server.base / "output" / "sparse_dicts" / "finished_2.safetensors").metadata["training"]["steps"] in (1, "1")


def test_what_managers_of_loras_read_stands_beside_the_file_where_it_is_asked_for(server, trained):
    from PIL import Image

    folder = server.base / "output" / "sparse_dicts"
    assert not (folder / "finished.preview.png").exists() and not (folder / "finished.metadata.json").exists()
    assert load(folder / "finished.safetensors").metadata["modelspec.thumbnail"].startswith("data:image/jpeg;base64,")
    server.run(graph("with a card", steps=1, preview_prompts="a zorp in the center, night", preview_every=2, card=True))
    with Image.open(folder / "with a card.preview.png") as picture:
        assert picture.size == (96, 96)
    card = json.loads((folder / "with a card.metadata.json").read_text(encoding="utf-8"))
    assert card["model_name"] == "with a card" and card["civitai"]["trainedWords"] == ["zorp"] and card["preview_url"].endswith("with a card.preview.png")


def steps_seen(client):
    return [event for event in train_events(client) if event["event"] == "step"]


def finished_event(client):
    return next(event for event in train_events(client) if event["event"] == "finished")


def interrupted(entry):
    """Whether the host was told of a stop; a failure would stand red in the graph and ask for another configuration."""
    kinds = [kind for kind, _ in entry["status"]["messages"]]
    assert "execution_error" not in kinds
    return "execution_interrupted" in kinds


def test_stopping_writes_what_was_learned_and_names_it(server):
    """Within the step that runs (seconds: benchmarks, host-speed); the same node with resume then goes on to the end."""
    wanted = {"steps": 3000, "checkpoint_every": 1000}
    with server.listen() as client:
        prompt = server.queue(graph("stopped", **wanted), client.id)
        while not steps_seen(client):
            time.sleep(0.05)
        server.interrupt()
        seen = len(steps_seen(client))
        entry = server.wait(prompt)
        late = len(steps_seen(client)) - seen
        kept = finished_event(client)
    path = server.base / "output" / "sparse_dicts" / "stopped.safetensors"
    assert interrupted(entry) and late <= 2
    (checkpoint,) = checkpoints(server, "stopped")
    done = int(checkpoint.stem.removeprefix("step-"))
    assert (kept["path"], kept["file"], kept["stopped"], kept["steps"]) == (str(path), "stopped.safetensors", done, 3000)
    assert int(load(path).metadata["training"]["steps"]) == done > 0
    with server.listen() as client:
        prompt = server.queue(graph("stopped", resume=True, **wanted), client.id)
        while not steps_seen(client):
            time.sleep(0.05)
        assert steps_seen(client)[0]["step"] > done
        server.interrupt()
        server.wait(prompt)


def test_stopping_while_quiet_samples_are_made(server):
    with server.listen() as client:
        prompt = server.queue(graph("early", quiet_samples=96, sampling_steps=500), client.id)
        while not [event for event in train_events(client) if event.get("stage") == "quiet samples"]:
            time.sleep(0.05)
        time.sleep(0.5)
        server.interrupt()
        entry = server.wait(prompt)
    assert interrupted(entry) and "nothing was written" in train_events(client)[-1]["text"]
    assert train_events(client)[-1]["event"] == "ended" and "nothing was written" in server.get("/sparsedict/train")["ended"]


def test_quiet_samples_are_counted_one_by_one(server):
    """A batch of them may take most of a minute; what is done of it shows."""
    with server.listen() as client:
        server.run(graph("counted", quiet_samples=16, sampling_steps=16, training_seed=5), client.id)
        done = [event["done"] for event in train_events(client) if event["event"] == "progress" and event["stage"] == "quiet samples"]
    assert done == sorted(done) and done[-1] == 16 and len(set(done)) > 2


def keep(server, prompt, node="3"):
    return server.post("/sparsedict/train/keep", {"node": node, "prompt": prompt})


def test_stop_and_keep_goes_on_with_the_adapter_so_far(server):
    wanted = graph("kept", steps=3000, checkpoint_every=1000)
    wanted["6"] = {"class_type": "SparseDictInspect", "inputs": {"sparse_dict": ["3", 0], "strongest": 3}}
    wanted["7"] = {"class_type": "PreviewAny", "inputs": {"source": ["6", 1]}}
    with server.listen() as client:
        prompt = server.queue(wanted, client.id)
        while not steps_seen(client):
            time.sleep(0.05)
        assert steps_seen(client)[0]["prompt"] == prompt
        assert steps_seen(client)[0]["workflow"] is None and server.get("/sparsedict/train")["workflow"] is None
        for other in (keep(server, "another"), keep(server, prompt, "4")):
            assert other[0] == 409 and "nothing to stop" in other[1]["error"]
        seen = len(steps_seen(client))
        assert keep(server, prompt)[0] == 200
        outputs = server.result(prompt)
        assert len(steps_seen(client)) - seen <= 2
        finished = next(event for event in train_events(client) if event["event"] == "finished")
    path = server.base / "output" / "sparse_dicts" / "kept.safetensors"
    (checkpoint,) = checkpoints(server, "kept")
    done = int(load(path).metadata["training"]["steps"])
    log = outputs["5"]["text"][0].splitlines()
    assert log[-1].startswith(f"stopped after {done} of 3000 steps") and str(path) in log[-1] and str(checkpoint) in log[-1]
    assert finished["stopped"] == done == int(checkpoint.stem.removeprefix("step-")) and finished["path"] == str(path)
    assert outputs["4"]["images"] and outputs["7"]["text"][0]
    job = server.get("/sparsedict/train")
    assert not job["running"] and job["stopped"] == done and keep(server, prompt)[0] == 409
    with server.listen() as client:
        wanted["3"]["inputs"]["resume"] = True
        prompt = server.queue(wanted, client.id)
        while not steps_seen(client):
            time.sleep(0.05)
        assert steps_seen(client)[0]["step"] > done and keep(server, prompt)[0] == 200
        server.result(prompt)


def test_stop_and_keep_before_there_is_an_adapter_says_so(server):
    with server.listen() as client:
        prompt = server.queue(graph("early", quiet_samples=95, sampling_steps=500), client.id)
        while not [event for event in train_events(client) if event.get("stage") == "quiet samples"]:
            time.sleep(0.05)
        assert keep(server, prompt)[0] == 200
        entry = server.wait(prompt)
    job = server.get("/sparsedict/train")
    assert interrupted(entry) and "nothing was written" in job["ended"] and not job["running"]


def test_resume_goes_on_from_the_numbered_run_that_was_stopped(server):
    wanted = {"steps": 3000, "checkpoint_every": 1000}
    server.run(graph("numbered", steps=2))
    folder = server.base / "output" / "sparse_dicts"
    finished = (folder / "numbered.safetensors").read_bytes()
    done = 0
    for resume in (False, True):
        with server.listen() as client:
            prompt = server.queue(graph("numbered", resume=resume, **wanted), client.id)
            while not steps_seen(client):
                time.sleep(0.05)
            first = steps_seen(client)[0]["step"]
            server.interrupt()
            assert interrupted(server.wait(prompt))
            kept = finished_event(client)
        assert kept["path"] == str(folder / "numbered_2.safetensors") and first > done
        done = int(checkpoints(server, "numbered_2")[-1].stem.removeprefix("step-"))
        assert kept["stopped"] == done
    assert (folder / "numbered.safetensors").read_bytes() == finished and not (folder / "numbered_3.safetensors").exists()


# In this process.


@pytest.fixture(scope="module")
def node(comfy):
    from sparsedict.nodes.train import TrainSparseDict

    return TrainSparseDict


@pytest.fixture(scope="module")
def demo(comfy):
    from sparsedict.comfyui_host import demo_base

    with torch.inference_mode():
        return demo_base.load_model(), demo_base.load_clip(), demo_base.load_vae()


def execute(node, model, clip=None, vae=None, images=None, **more):
    """As the host calls it: in inference mode, all inputs as lists."""
    values = {"model": model, "clip": clip, "vae": vae, "name": "here", "word": "zorp", "caption": "a zorp in the center, night", "preset": "concept",
              "effort": "quick", "training_seed": 0, **SHORT, **more}  # fmt: skip
    with torch.inference_mode():
        if images is None and "latents" not in more:
            images = [torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(row)) for row in range(3)]
        lists = {key: value if key in ("latents", "conditioning", "captions") else [value] for key, value in values.items() if value is not None}
        return node.execute(images=images, **lists)


def test_latents_and_conditioning_need_neither_clip_nor_vae(node, comfy):
    patcher = tiny_models.load("wan")
    result = execute(node, patcher, latents=[tiny_models.latent("wan", 3, seed=2)], conditioning=[tiny_models.conditioning("wan")], name="latents")
    value, plot, log = result.result
    assert value.adapter.metadata["base_family"] == "wan" and plot.ndim == 4 and "no quiet samples" in log
    assert not any(parameter.requires_grad for parameter in value.adapter.parameters())


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"images": []}, DataError, "connect either images"),
        ({"vae": None}, TrainingError, "connect the checkpoint's VAE"),
        ({"clip": None}, DataError, "connect the checkpoint's CLIP"),
        ({"caption": "", "word": ""}, DataError, "no captions"),
        ({"captions": ["a zorp", "a zorp"]}, DataError, "3 pictures but 2 captions"),
        ({"captions": ["an unheard word"]}, DataError, "unheard"),
        ({"name": "../../escape"}, FileFormatError, "leads out"),
        ({"resolution": 128}, TrainingError, "96×96 only"),
    ],
)
def test_mistakes_are_told_in_one_sentence(node, demo, more, error, words):
    model, clip, vae = demo
    with pytest.raises(error, match=words):
        execute(node, model, **{"clip": clip, "vae": vae, **more})


def poisoned(monkeypatch, backend_call, at):
    from sparsedict.trainer.backends.comfyui import ComfyBackend

    predict, calls = ComfyBackend.predict, []

    def wrapped(self, *args):
        calls.append(torch.is_grad_enabled() and not torch.is_inference_mode_enabled())
        output = predict(self, *args)
        return backend_call(output) if len(calls) >= at else output

    monkeypatch.setattr(ComfyBackend, "predict", wrapped)


def clean(model, comfy):
    management = comfy.model_management
    assert not management.in_training and not management.processing_interrupted()
    assert not any("forward" in module.__dict__ or module._forward_hooks for module in model.model.modules())


def test_a_loss_that_is_not_a_number_is_loud_and_leaves_the_host_clean(node, demo, comfy, monkeypatch):
    monkeypatch.setattr(comfy.model_management, "in_training", False, raising=False)
    poisoned(monkeypatch, lambda output: output * float("nan"), 5)  # the first is the trial step
    with pytest.raises(TrainingError, match=r"not finite at step 3 .*step-000002.*lower learning_rate"):
        execute(node, *demo, name="nan")
    clean(demo[0], comfy)


def test_out_of_memory_says_which_setting_to_lower(node, demo, comfy, monkeypatch):
    monkeypatch.setattr(comfy.model_management, "in_training", False, raising=False)

    def fail(output):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    poisoned(monkeypatch, fail, 3)
    with pytest.raises(TrainingError, match=r"out of memory .*gradient_checkpointing.*gradient_accumulation"):
        execute(node, *demo, name="memory")
    clean(demo[0], comfy)


def test_in_training_is_set_while_it_trains(node, demo, comfy, monkeypatch):
    monkeypatch.setattr(comfy.model_management, "in_training", False, raising=False)
    seen = []
    poisoned(monkeypatch, lambda output: seen.append(comfy.model_management.in_training) or output, 1)
    execute(node, *demo, name="flag")
    assert seen and all(seen)
    clean(demo[0], comfy)


@pytest.mark.parametrize("how", ["waits to be asked for", "was asked for", "comes as an exception"])
def test_a_cancel_after_the_last_step_ends_the_graph_and_names_the_file(node, demo, comfy, monkeypatch, how):
    from sparsedict.nodes.train_events import HostCallbacks
    from sparsedict.trainer.backends.comfyui import ComfyBackend

    management, on_stage, predict, raised = comfy.model_management, HostCallbacks.on_stage, ComfyBackend.predict, []

    def stage(self, name, detail=""):
        on_stage(self, name, detail)
        if name == "importance" and how == "waits to be asked for":
            management.interrupt_current_processing(True)
        elif name == "importance" and how == "was asked for":
            self._note_interrupt()
        elif name == "importance":
            monkeypatch.setattr(ComfyBackend, "predict", once)

    def once(self, *args):
        monkeypatch.setattr(ComfyBackend, "predict", predict)
        raised.append(True)
        raise management.InterruptProcessingException

    monkeypatch.setattr(management, "in_training", False, raising=False)
    monkeypatch.setattr(HostCallbacks, "on_stage", stage)
    said = []
    monkeypatch.setattr(HostCallbacks, "finished", lambda self, *rest: said.append((self.lines[-1], *rest)))
    with pytest.raises(management.InterruptProcessingException):
        execute(node, *demo, name="late")
    ((text, path, stopped, _),) = said
    assert text == f"cancelled after the last of 4 steps; {path} is written." and stopped is None
    adapter = load(path)
    assert all(bool((site.importance > 0).any()) for site in adapter.sites.values())
    assert bool(raised) == (how == "comes as an exception")
    clean(demo[0], comfy)


def test_a_workflow_without_an_id_is_none(comfy):
    from sparsedict.nodes.train_events import workflow_id

    assert workflow_id({"workflow": {"id": "of a tab"}}) == "of a tab"
    for none in (None, {}, [], {"workflow": None}, {"workflow": {}}, {"workflow": {"id": 3}}):
        assert workflow_id(none) is None
