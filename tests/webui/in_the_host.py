"""Runs inside a web UI's own Python: starts it with the pack as an extension, draws, and prints what happened as JSON.

    python in_the_host.py ROOT DATA         A1111 or a Forge in ROOT, with checkpoints and this pack in DATA

AUTOMATIC1111 is called in process, the Forges over HTTP; both by the routes that a person's tools call.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import io
import json
import os
import shutil
import socket
import sys
import threading
import time
from pathlib import Path

ROOT, DATA = Path(sys.argv[1]), Path(sys.argv[2])
FORGE = (ROOT / "modules_forge").is_dir()
NEO = (ROOT / "modules_forge/packages").is_dir()
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    PORT = free.getsockname()[1]
FLAGS = ["--skip-prepare-environment", "--skip-install", "--skip-version-check", "--nowebui", "--api", "--no-hashing", "--port", str(PORT)]
if NEO:
    FLAGS += ["--cpu", "--force-fp32"]
elif FORGE:
    FLAGS += ["--always-cpu", "--all-in-fp32"]
else:
    FLAGS += ["--use-cpu", "all", "--no-half", "--disable-nan-check", "--skip-load-model-at-start"]
sys.argv = ["webui.py", *FLAGS, "--data-dir", str(DATA), "--sparsedict-dir", str(DATA / "adapters"), "--lora-dir", str(DATA / "loras")]
os.environ["HF_HUB_OFFLINE"] = "1"
os.chdir(ROOT)
sys.path.insert(0, str(ROOT))

import webui  # noqa: E402
from modules import initialize  # noqa: E402

if not FORGE:  # the Forges do it themselves when they are imported
    initialize.initialize()

from modules import script_callbacks, scripts, shared, ui_extra_networks  # noqa: E402
from PIL import Image  # noqa: E402


def served():
    """A client of the host's routes."""
    if not FORGE:
        from fastapi import FastAPI
        from fastapi.testclient import TestClient

        app = FastAPI()
        webui.create_api(app)
        script_callbacks.before_ui_callback()
        script_callbacks.app_started_callback(None, app)
        return TestClient(app, raise_server_exceptions=False)
    import httpx

    threading.Thread(target=webui.api_only_worker, daemon=True).start()
    # A connection is not used again: the host closes it after an error.
    client = httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=600, limits=httpx.Limits(max_keepalive_connections=0))
    for _ in range(600):
        try:
            client.get("/sdapi/v1/options")
            return client
        except httpx.ConnectError:
            time.sleep(0.5)
    raise SystemExit("the host does not answer")


client = served()
pack = "sparsedict_extension"
network, names, files = (importlib.import_module(f"{pack}.webui_host.{name}") for name in ("network", "names", "files"))
TWO_FILES = "a cat <sparsedict:zorp:0.8:keep=0.25> <sparsedict:styles/ink, wet:0.4:atoms=L0.self[1]+L1.cross[2]>"
report: dict = {"pictures": {}, "errors": {}, "infotext": {}}


def model():
    return network.diffusion_model(shared.sd_model)


def hooks() -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model().modules())


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


def make_lora() -> None:
    """A LoRA file on one Linear, as every host reads them."""
    import torch
    from safetensors.torch import save_file

    width, generator = model().input_blocks[1][1].transformer_blocks[0].attn1.to_q.weight.shape[0], torch.Generator().manual_seed(3)
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    down, up = (torch.randn(*shape, generator=generator) for shape in ((2, width), (width, 2)))
    save_file({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(2.0)}, DATA / "loras" / "small.safetensors")


(DATA / "loras").mkdir(exist_ok=True)


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
report["outputs"] = sum(name.endswith((".attn1.to_out.0", ".attn2.to_out.0")) for name, _ in model().named_modules())
report["hooks before"] = hooks()
report["sites"] = make_adapter()
make_lora()
client.post("/sdapi/v1/refresh-loras")
draw("base", "a cat")
draw("tag", "a cat <sparsedict:zorp:0.8>")
draw("again", "a cat <sparsedict:zorp:0.8>")
draw("by the script's argument", "a cat", alwayson_scripts={"SparseDict": {"args": ["<sparsedict:zorp:0.8>"]}})
draw("removed", "a cat")
draw("zero", "a cat <sparsedict:zorp:0>")
draw("quarter", "a cat <sparsedict:zorp:0.8:keep=0.25>")
draw("early", "a cat <sparsedict:zorp:0.8:end=0.5>")
draw("twice", "a cat <sparsedict:zorp:0.8> <sparsedict:zorp:0.4:top=9>")
(DATA / "adapters" / "styles").mkdir(exist_ok=True)
shutil.copy(DATA / "adapters" / "zorp.safetensors", DATA / "adapters" / "styles" / "ink, wet.safetensors")
draw("two files", TWO_FILES)
draw("unknown", "a cat <sparsedict:zrop>")
draw("after an error", "a cat")
draw("wrong address", "a cat <sparsedict:zorp:atoms=L99>")
shared.opts.set(network.OPTION, network.WITHOUT)
draw("made without", "a cat <sparsedict:zrop>")
shared.opts.set(network.OPTION, network.STOP)
hires = {"enable_hr": True, "hr_scale": 2, "denoising_strength": 0.7, "hr_upscaler": next(iter(shared.latent_upscale_modes)) if not NEO else "None", **({"hr_additional_modules": ["Use same choices"]} if FORGE else {})}
draw("hires base", "a cat", **hires)
draw("hires", "a cat <sparsedict:zorp:0.8>", **hires)
draw("hires again", "a cat <sparsedict:zorp:0.8>", **hires)
draw("after hires", "a cat")
draw("with a missing lora", "a cat <lora:none:1> <sparsedict:zorp:0.8>")

draw("lora", "a cat <lora:small:1>")
draw("lora and tag", "a cat <lora:small:1> <sparsedict:zorp:0.8>")
draw("lora and tag again", "a cat <sparsedict:zorp:0.8> <lora:small:1>")
draw("lora alone again", "a cat <lora:small:1>")
draw("after a lora", "a cat")

from modules.infotext_utils import parse_generation_parameters  # noqa: E402

# What the host reads from a picture's text that is pasted into the prompt.
report["pasted"] = {name: value for name, value in parse_generation_parameters(report["infotext"]["two files"]).items() if name in ("Prompt", network.INFOTEXT)}

original = network.APPLIED.at
network.APPLIED.at = lambda progress: (report.update(hooked=hooks()), shared.state.interrupt())
draw("interrupted", "a cat <sparsedict:zorp:0.8>")
network.APPLIED.at = original
draw("after an interrupt", "a cat")
client.post("/sdapi/v1/reload-checkpoint" if not FORGE else "/sdapi/v1/unload-checkpoint")
draw("after a reload of the checkpoint", "a cat")
draw("tag after a reload of the checkpoint", "a cat <sparsedict:zorp:0.8>")
draw("on another checkpoint", "a cat <sparsedict:zorp:0.8>", override_settings={"sd_model_checkpoint": "other"})
draw("after another checkpoint", "a cat")
draw("before an extension's reload", "a cat <sparsedict:zorp:0.8>")
script_callbacks.script_unloaded_callback()
report["left"] = hooks()

# Training, on pictures of noise: to its end, stopped, and on from there.
training = importlib.import_module(f"{pack}.webui_host.training")
(DATA / "pictures").mkdir(exist_ok=True)
for number in range(2):
    Image.effect_noise((64, 64), 60 + 20 * number).convert("RGB").save(DATA / "pictures" / f"{number}.png")


def train(name: str, steps: int, resume: bool = False, previews: str = "", after: int = 0) -> dict:
    """The run's end as the page is told it; stopped `after` as many steps."""
    said = training.start(str(DATA / "pictures"), name, "zorp", "", "concept", "quick", steps, 64, 0, previews, resume, quiet_samples=0, batch_size=1)
    report.setdefault("said", said)
    try:
        training.start(str(DATA / "pictures"), "another", "zorp", "", "concept", "quick", 1, 64, 0, "", False)
    except Exception as error:
        report["second"] = str(error)
    while after and client.get("/sparsedict/v1/train").json()["running"]:
        if len(client.get("/sparsedict/v1/train").json()["points"]) >= after:
            report["stopping"] = client.post("/sparsedict/v1/train/keep").status_code
            break
        time.sleep(0.02)
    while not after and client.get("/sparsedict/v1/train").json()["stage"] is None:
        time.sleep(0.02)
    if not after:
        draw("while training", "a cat")  # it waits for its turn
        report["waited"] = not client.get("/sparsedict/v1/train").json()["running"]
    training.wait()
    return {key: value for key, value in client.get("/sparsedict/v1/train").json().items() if key != "warnings"}


report["trained"] = train("made", 2, previews="a zorp")
report["preview"] = client.get("/sparsedict/v1/train/preview").headers["content-type"]
report["stopped"] = train("more", 40, after=1)
report["resumed"] = train("more", 40, resume=True, after=2)
try:
    training.start(str(DATA / "nothing"), "x", "zorp", "", "concept", "quick", 1, 64, 0, "", False)
except Exception as error:
    report["no pictures"] = str(error)
draw("after training", "a cat")
draw("what was trained", "a cat <sparsedict:made:1>")
draw("after what was trained", "a cat")
report["hooks after training"] = hooks()

page = next(page for page in ui_extra_networks.extra_pages if page.title == "SparseDict")
item = next(item for item in page.list_items() if item["name"] == "zorp")
html = page.create_html("txt2img")
report["card html"] = "zorp" in str(html)
report["card"] = {"name": item["name"], "prompt": item["prompt"], "description": item["description"], "preview": item["preview"]}
report["api"] = {
    "list": [item["name"] for item in client.get("/sparsedict/v1/list").json()],
    "atoms": client.get("/sparsedict/v1/inspect", params={"name": "zorp"}).json()["atoms"],
    "unknown": client.get("/sparsedict/v1/inspect", params={"name": "zrop"}).status_code,
    "script": client.get("/sparsedict/v1/js/web/atom_selector.js").text[:12],
    "no script": client.get("/sparsedict/v1/js/web/texts.py").status_code,
    "thumbnail": client.get("/sparsedict/v1/thumbnail", params={"name": "zorp"}).headers["content-type"],
}
plots = [data.module for data in scripts.scripts_data if hasattr(data.module, "axis_options")]
report["axes"] = [option.label for module in plots for option in module.axis_options if option.label.startswith("[SparseDict]")]
print("REPORT " + json.dumps(report))
