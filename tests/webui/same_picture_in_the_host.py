"""Runs inside a web UI's own Python: loads a checkpoint with the host's classes and draws tests/webui/same_picture.py's picture.

    python same_picture_in_the_host.py ROOT PROJECT CHECKPOINT FOLDER OUT         FOLDER holds same.safetensors; OUT gets base and tag
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path

ROOT, PROJECT, CHECKPOINT, FOLDER, OUT = (Path(argument) for argument in sys.argv[1:])
FORGE, NEO = (ROOT / "modules_forge").is_dir(), (ROOT / "modules_forge/packages").is_dir()
sys.argv = ["webui.py", *(["--cpu", "--force-fp32"] if NEO else ["--always-cpu", "--all-in-fp32"] if FORGE else ["--use-cpu", "all", "--no-half"])]
os.chdir(ROOT)
sys.path[:0] = [str(ROOT), str(ROOT / ("modules_forge/packages" if NEO else "packages_3rdparty")), str(PROJECT / "tests/webui")]
sys.path.insert(1, str(ROOT / "repositories" / ("huggingface_guess" if FORGE else "stable-diffusion-stability-ai")))

import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from same_picture import STRENGTH, draw  # noqa: E402

spec = importlib.util.spec_from_file_location("pack", PROJECT / "__init__.py", submodule_search_locations=[str(PROJECT)])
sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["pack"])
applied, network = (importlib.import_module(f"pack.webui_host.{name}") for name in ("applied", "network"))


def forge():
    from modules import shared_init

    shared_init.initialize()  # the text encoder takes the host's options as it is imported
    from backend.args import dynamic_args
    from backend.loader import forge_loader

    for name, value in (("embedding_dir", str(FOLDER)), ("emphasis_name", "Original")):
        dynamic_args.__setitem__(name, value) if isinstance(dynamic_args, dict) else setattr(dynamic_args, name, value)
    return forge_loader(str(CHECKPOINT))


def a1111():
    """The UNet and the VAE of the host's own configuration, in the checkpoint's sizes."""
    from ldm.util import instantiate_from_config
    from omegaconf import OmegaConf

    text = (ROOT / "configs/v1-inference.yaml").read_text()
    changes = {"num_res_blocks: 2\n        channel_mult: [ 1, 2, 4, 4 ]\n        num_heads": "num_res_blocks: 1\n        channel_mult: [ 1, 1 ]\n        num_heads"}
    changes["attention_resolutions: [ 4, 2, 1 ]"] = "attention_resolutions: [ 2, 1 ]"
    changes["ldm.modules.encoders.modules.FrozenCLIPEmbedder"] = "torch.nn.Identity"
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    model = instantiate_from_config(OmegaConf.create(text).model)
    model.load_state_dict({key: value.float() for key, value in load_file(CHECKPOINT).items() if not key.startswith("cond_stage_model.")}, strict=False)
    return model.eval().requires_grad_(False)


model = forge() if FORGE else a1111()
denoiser = network.diffusion_model(model)
tags = applied.AppliedTags()


def picture() -> torch.Tensor:
    return draw(lambda x, t, context: denoiser(x, t, context=context), model.decode_first_stage)


base = picture()
tags.apply(denoiser, [["same", str(STRENGTH)]], FOLDER)
tagged = picture()
tags.clear()
save_file({"base": base, "tag": tagged, "restored": picture()}, OUT)
