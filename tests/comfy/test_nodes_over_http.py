"""The nodes in graphs, as a front end queues them: on the Demo Model, with the host's stock nodes around them."""

import base64
import json
import os

import pytest
import torch
from host import PromptFailed, PromptRefused

from sparsedict.demo_model.architecture import build_transformer
from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.addresses import resolve
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.file_format import load, save
from sparsedict.sparsedict_core.site_discovery import discover_sites

FILE = os.path.join("made", "noise.safetensors")
SELECT = {
    "mode": "share", "share": 0.5, "top": 5, "threshold": 0.1, "atoms": "", "order": "importance", "per_site": False, "layers": "",
    "invert": False, "refit": False,
}  # fmt: skip


def make_file(path, family="demo"):
    """A random adapter that the command line would make for the embedded base: names from diffusers' module tree."""
    with torch.device("meta"):
        transformer = build_transformer()
    found = discover_sites(transformer)
    config, metadata = AdapterConfig(atoms=8, rank=4), {"base_family": family, "trigger_words": ["circle"]}
    adapter = SparseAdapter.create(transformer, found.sites, config, found.component, 0, metadata)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for site in adapter.sites.values():
            site.dictionary_basis.copy_(torch.randn(site.dictionary_basis.shape, generator=generator) * 0.3)
            site.importance = torch.rand(site.atoms, generator=generator) + 0.01
    path.parent.mkdir(parents=True, exist_ok=True)
    save(adapter, path, overwrite=True)


@pytest.fixture(scope="module")
def files(server):
    folder = server.base / "models" / "sparse_dicts" / "made"
    make_file(folder / "noise.safetensors")
    make_file(folder / "flux.safetensors", "flux")
    return server


def graph(nodes, model, prefix):
    """`nodes`, and a picture made with `model` (a link)."""
    return {
        "base": {"class_type": "SparseDictDemoModel", "inputs": {}},
        "words": {"class_type": "CLIPTextEncode", "inputs": {"text": "a flat fox", "clip": ["base", 1]}},
        "none": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["base", 1]}},
        "latent": {"class_type": "SparseDictDemoLatent", "inputs": {"batch_size": 1}},
        **nodes,
        "sampled": {
            "class_type": "KSampler",
            "inputs": {
                "model": model, "positive": ["words", 0], "negative": ["none", 0], "latent_image": ["latent", 0], "seed": 1, "steps": 2,
                "cfg": 3.5, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0,
            },
        },
        "decoded": {"class_type": "VAEDecode", "inputs": {"samples": ["sampled", 0], "vae": ["base", 2]}},
        "saved": {"class_type": "SaveImage", "inputs": {"images": ["decoded", 0], "filename_prefix": prefix}},
    }  # fmt: skip


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def chain(strength=1.0, share=0.5, file=FILE, **select):
    return {
        "load": node("SparseDictLoad", file=file),
        "select": node("SparseDictSelectAtoms", sparse_dict=["load", 0], **{**SELECT, "share": share, **select}),
        "apply": node("SparseDictApply", model=["base", 0], sparse_dict=["select", 0], strength=strength, start_percent=0.0, end_percent=1.0),
    }


def pixels(server, outputs):
    from PIL import Image

    return [Image.open(server.file(image)).convert("RGB").tobytes() for image in outputs["saved"]["images"]]


def test_the_front_end_knows_the_nodes(files):
    for node_id in ("SparseDictLoader", "SparseDictSelectAtoms", "SparseDictProbe", "SparseDictSave"):
        assert files.object_info(node_id)["category"] == "SparseDict"
    assert FILE in str(files.object_info("SparseDictLoader")["input"]["required"]["file"])


def test_a_graph_runs_and_the_cache_does_what_a_user_expects(files):
    server = files
    base = pixels(server, server.run(graph({}, ["base", 0], "base")))
    first = server.queue(graph(chain(), ["apply", 0], "a"))
    changed = pixels(server, server.result(first))
    assert changed != base
    stronger = server.queue(graph(chain(strength=0.5), ["apply", 0], "a"))
    assert pixels(server, server.result(stronger)) not in (base, changed)
    assert server.ran(stronger) == {"apply", "sampled", "decoded", "saved"}
    fewer = server.queue(graph(chain(strength=0.5, share=0.1), ["apply", 0], "a"))
    server.result(fewer)
    assert server.ran(fewer) == {"select", "apply", "sampled", "decoded", "saved"}
    nothing = pixels(server, server.run(graph(chain(strength=0.0), ["apply", 0], "zero")))
    assert nothing == base
    assert pixels(server, server.run(graph({}, ["base", 0], "base again"))) == base


def test_a_changed_file_is_read_again(files):
    server = files
    one = {"one": node("SparseDictLoader", model=["base", 0], file=FILE, strength=1.0, share=1.0)}
    server.run(graph(one, ["one", 0], "f"))
    again = server.queue(graph(one, ["one", 0], "f"))
    server.result(again)
    assert "one" not in server.ran(again)
    path = server.base / "models" / "sparse_dicts" / FILE
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 10**9))
    touched = server.queue(graph(one, ["one", 0], "f"))
    server.result(touched)
    assert "one" in server.ran(touched)


def test_a_sweep_makes_one_picture_a_step(files):
    nodes = {
        "load": node("SparseDictLoad", file=FILE),
        "sweep": node("SparseDictAtomSweep", sparse_dict=["load", 0], count=3, start=0.0, stop=1.0, spacing="importance", order="importance"),
        "apply": node("SparseDictApply", model=["base", 0], sparse_dict=["sweep", 0], strength=1.0, start_percent=0.0, end_percent=1.0),
    }
    pictures = pixels(files, files.run(graph(nodes, ["apply", 0], "sweep")))
    assert len(pictures) == 3 and len(set(pictures)) == 3
    assert pictures[:1] == pixels(files, files.run(graph({}, ["base", 0], "start of the sweep")))


def test_two_branches_of_one_graph_do_not_leak(files):
    """Each branch must be what it is alone; between the runs the host forgets what it has cached."""
    nodes = chain(share=1.0)
    nodes["other"] = node("SparseDictApply", model=["base", 0], sparse_dict=["load", 0], strength=-1.0, start_percent=0.0, end_percent=1.0)
    both = graph(nodes, ["apply", 0], "left")
    for name in ("sampled", "decoded", "saved"):
        inputs = both[name]["inputs"].items()
        twin = {key: [f"{v[0]}2", v[1]] if isinstance(v, list) and v[0] in ("sampled", "decoded") else v for key, v in inputs}
        both[f"{name}2"] = {"class_type": both[name]["class_type"], "inputs": twin}
    both["sampled2"]["inputs"]["model"] = ["other", 0]
    files.post("/free", {"free_memory": True})
    outputs = files.run(both)
    left, right = pixels(files, outputs), pixels(files, {"saved": outputs["saved2"]})
    assert left != right
    for link, seen in (("apply", left), ("other", right)):
        files.post("/free", {"free_memory": True})
        assert pixels(files, files.run(graph(nodes, [link, 0], "alone"))) == seen


def test_inspect_probe_compose_scale_and_save_run(files):
    server = files
    strengths = {f"strength_{number}": 1.0 for number in range(1, 9)}
    nodes = {
        **chain(),
        "scaled": node("SparseDictScaleAtoms", sparse_dict=["load", 0], gains="L0.image[0]=2"),
        "both": node("SparseDictCompose", **{"dicts.dict_1": ["select", 0], "dicts.dict_2": ["scaled", 0]}, **strengths),
        "seen": node("SparseDictInspect", sparse_dict=["both", 0], strongest=3),
        "probe": node(
            "SparseDictProbe", model=["apply", 0], positive=["words", 0], negative=["none", 0], latent_image=["latent", 0], vae=["base", 2], seed=1,
            steps=2, cfg=3.5, sampler_name="euler", scheduler="simple", denoise=1.0, top=3, which=-1,
        ),
        "kept": node(
            "SparseDictSave", sparse_dict=["both", 0], filename="made/both", folder="output", existing="overwrite", precision="fp16", moments=True,
            trigger_words="",
        ),
        "map": node("PreviewImage", images=["probe", 1]),
    }  # fmt: skip
    outputs = server.run(graph(nodes, ["apply", 0], "all"))
    assert "member noise_2: strength 1" in outputs["seen"]["text"][0]
    assert outputs["probe"]["text"][0].startswith("atom")
    (entry,) = outputs["probe"]["sparsedict_probe"]
    probed = json.loads(server.file(entry).read_text(encoding="utf-8"))
    first = outputs["probe"]["text"][0].splitlines()[1].split()
    site = next(site for site in probed["sites"] if first[0].startswith(f"{site['label']}["))
    row = site["atom_ids"].index(int(first[0].partition("[")[2].rstrip("]")))
    assert site["importance"][row] > 0 and f"{site['firing'][row]:.0%}" in first
    # Half of the atoms were selected before: the others are told apart, and have no maps.
    left = resolve(load(server.base / "models" / "sparse_dicts" / FILE), probed["left"])
    assert sum(int(mask.sum()) for mask in left.values()) == probed["atoms"] // 2
    assert probed["maps"] and all(resolve(load(server.base / "models" / "sparse_dicts" / FILE), each["address"]) for each in probed["maps"])
    for each in probed["maps"]:
        assert len(base64.b64decode(each["grid"])) == each["width"] * each["height"] <= 32 * 32
        assert max(base64.b64decode(each["grid"])) == 255
    assert outputs["map"]["images"]
    saved = load(server.base / "output" / "made" / "both.safetensors")
    assert [member.name for member in saved.members] == ["noise", "noise_2"]


@pytest.mark.parametrize(
    "change, node_id, said",
    [
        ({"file": "shared.safetensors"}, "load", "'shared.safetensors' is not in models/sparse_dicts; put the file there"),
        ({"mode": "addresses", "atoms": "L0[1"}, "select", "expected a comma or ]"),
        ({"share": 1.5}, "select", "1.5 bigger than max of 1.0"),
    ],
)
def test_mistakes_are_said_before_anything_runs(files, change, node_id, said):
    with pytest.raises(PromptRefused) as refused:
        files.run(graph(chain(**change), ["apply", 0], "x"))
    assert node_id in refused.value.errors
    assert said in str(refused.value.errors[node_id])


@pytest.mark.parametrize(
    "change, node_id, said",
    [
        ({"file": os.path.join("made", "flux.safetensors")}, "apply", "the adapter was made for flux, this model is sd3; load a flux model"),
        ({"mode": "addresses", "atoms": "L99[1]"}, "select", "there is no layer L99"),
        ({"order": "greedy"}, "select", "moments"),
    ],
)
def test_mistakes_turn_one_node_red_with_one_sentence(files, change, node_id, said):
    with pytest.raises(PromptFailed, match=said) as failed:
        files.run(graph(chain(**change), ["apply", 0], "x"))
    assert failed.value.node == node_id


def test_the_start_is_quiet_and_quick(files):
    """The host lists how long each custom node took to import; nothing else in the start is of the pack."""
    start = files.log.partition("Starting server")[0]
    lines = [line for line in start.splitlines() if "SparseDict" in line or "sparse" in line]
    assert "IMPORT FAILED" not in start
    assert [line for line in lines if " seconds: " not in line] == []
    assert float(lines[0].split(" seconds: ")[0].split()[-1]) < 1.0, "0.1 to 0.2 on a free machine"
