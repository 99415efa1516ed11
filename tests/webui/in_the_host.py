"""Runs inside a web UI's own Python: starts it in process with the pack as an extension, draws, and prints what happened as JSON.

    python in_the_host.py ROOT DATA         A1111 or a Forge in ROOT, with a checkpoint and this pack in DATA
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import io
import json
import os
import sys
from pathlib import Path

ROOT, DATA = Path(sys.argv[1]), Path(sys.argv[2])
FORGE = (ROOT / "modules_forge").is_dir()
FLAGS = ["--skip-prepare-environment", "--skip-install", "--skip-version-check", "--nowebui", "--api", "--no-hashing"]
FLAGS += ["--always-cpu", "--all-in-fp32"] if FORGE else ["--use-cpu", "all", "--no-half", "--disable-nan-check", "--skip-load-model-at-start"]
sys.argv = ["webui.py", *FLAGS, "--data-dir", str(DATA), "--sparsedict-dir", str(DATA / "adapters")]
os.environ["HF_HUB_OFFLINE"] = "1"
os.chdir(ROOT)
sys.path.insert(0, str(ROOT))
if FORGE:
    from modules import launch_utils

    launch_utils.prepare_environment = lambda: None
    from modules_forge.initialization import initialize_forge

    initialize_forge()

import webui  # noqa: E402
from modules import initialize  # noqa: E402

initialize.initialize()

from fastapi import FastAPI  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402
from modules import script_callbacks, scripts, shared, ui_extra_networks  # noqa: E402
from PIL import Image  # noqa: E402

# Forge gives its app a handler that puts the error into the answer; AUTOMATIC1111 adds its own.
app = FastAPI(exception_handlers={Exception: webui._handle_exception} if FORGE else None)
webui.create_api(app)
script_callbacks.before_ui_callback()
script_callbacks.app_started_callback(None, app)
client = TestClient(app, raise_server_exceptions=False)
pack = "sparsedict_extension"
network, names, files = (importlib.import_module(f"{pack}.webui_host.{name}") for name in ("network", "names", "files"))
report: dict = {"pictures": {}, "errors": {}, "infotext": {}}


def model():
    return network.diffusion_model(shared.sd_model)


def make_adapter() -> int:
    """A random dictionary on every attention output of the loaded model; returns how many sites that are."""
    import torch

    core = f"{pack}.sparsedict_core"
    site, adapter, config = (importlib.import_module(f"{core}.{name}") for name in ("site", "adapter", "config"))
    tree, layout, generator = dict(model().named_modules()), names.layout_of(model()), torch.Generator().manual_seed(0)
    settings, sites = config.AdapterConfig(atoms=16, rank=4), []
    for layer, block in enumerate(key for key in names._unet_blocks(tree) if ".attentions." in key):
        for attention, stream in (("attn1", "self"), ("attn2", "cross")):
            path = f"unet.{block}.transformer_blocks.0.{attention}.to_out.0"
            width = tree[layout.rename(path.removeprefix("unet."))[0]].weight.shape[0]
            made = site.SparseSite.create(site.SiteName(path, layer, stream), width, width, settings, generator)
            made.dictionary_basis.data.normal_(generator=generator)
            made.importance = torch.rand(16, generator=generator)
            sites.append(made)
    whole = adapter.SparseAdapter(sites, settings, "unet", {"base_family": layout.family, "title": "Zorp", "trigger_words": ["zorp"]})
    (DATA / "adapters").mkdir(exist_ok=True)
    importlib.import_module(f"{core}.file_format").save(whole, DATA / "adapters" / "zorp.safetensors", overwrite=True)
    return len(sites)


def draw(label: str, prompt: str, **more) -> None:
    request = {"prompt": prompt, "steps": 4, "width": 64, "height": 64, "seed": 1, "sampler_name": "Euler", **more}
    answer = client.post("/sdapi/v1/txt2img", json=request)
    if answer.status_code != 200:
        report["errors"][label] = json.dumps(answer.json())
        return
    picture = Image.open(io.BytesIO(base64.b64decode(answer.json()["images"][0])))
    report["pictures"][label] = hashlib.sha256(picture.tobytes()).hexdigest()[:16]
    report["infotext"][label] = json.loads(answer.json()["info"])["infotexts"][0]


draw("first", "a cat")
report["sites"] = make_adapter()
draw("base", "a cat")
draw("tag", "a cat <sparsedict:zorp:0.8>")
report["hooked"] = len(network.APPLIED.now)
draw("again", "a cat <sparsedict:zorp:0.8>")
draw("removed", "a cat")
draw("zero", "a cat <sparsedict:zorp:0>")
draw("quarter", "a cat <sparsedict:zorp:0.8:keep=0.25>")
draw("early", "a cat <sparsedict:zorp:0.8:end=0.5>")
draw("twice", "a cat <sparsedict:zorp:0.8> <sparsedict:zorp:0.4:top=9>")
draw("unknown", "a cat <sparsedict:zrop>")
draw("after an error", "a cat")
draw("wrong address", "a cat <sparsedict:zorp:atoms=L99>")
shared.opts.set(network.OPTION, network.WITHOUT)
draw("made without", "a cat <sparsedict:zrop>")
shared.opts.set(network.OPTION, network.STOP)
hires = {"enable_hr": True, "hr_scale": 2, "denoising_strength": 0.7, "hr_upscaler": "Latent", **({"hr_additional_modules": ["Use same choices"]} if FORGE else {})}
draw("hires base", "a cat", **hires)
draw("hires", "a cat <sparsedict:zorp:0.8>", **hires)
draw("hires again", "a cat <sparsedict:zorp:0.8>", **hires)
draw("after hires", "a cat")
draw("with a missing lora", "a cat <lora:none:1> <sparsedict:zorp:0.8>")

original = network.APPLIED.at
network.APPLIED.at = lambda progress: shared.state.interrupt()
draw("interrupted", "a cat <sparsedict:zorp:0.8>")
network.APPLIED.at = original
draw("after an interrupt", "a cat")
client.post("/sdapi/v1/reload-checkpoint" if not FORGE else "/sdapi/v1/unload-checkpoint")
draw("after a reload of the checkpoint", "a cat")
draw("tag after a reload of the checkpoint", "a cat <sparsedict:zorp:0.8>")
script_callbacks.script_unloaded_callback()
report["left"] = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model().modules() if module.__class__.__module__.startswith(pack))

page = next(page for page in ui_extra_networks.extra_pages if page.title == "SparseDict")
item = next(iter(page.list_items()))
report["card"] = {"name": item["name"], "prompt": item["prompt"], "description": item["description"], "preview": item["preview"]}
report["api"] = {
    "list": client.get("/sparsedict/v1/list").json(),
    "atoms": client.get("/sparsedict/v1/inspect", params={"name": "zorp"}).json()["atoms"],
    "unknown": client.get("/sparsedict/v1/inspect", params={"name": "zrop"}).status_code,
    "thumbnail": client.get("/sparsedict/v1/thumbnail", params={"name": "zorp"}).headers["content-type"],
}
plots = [data.module for data in scripts.scripts_data if hasattr(data.module, "axis_options")]
report["axes"] = [option.label for module in plots for option in module.axis_options if option.label.startswith("[SparseDict]")]
print("REPORT " + json.dumps(report))
