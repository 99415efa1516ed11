"""Make a web UI that `test_real_hosts.py` can run, from source folders that you have: AUTOMATIC1111 or Forge, and what they want beside them.

    python tests/webui/prepare_host.py OUT --host A1111_SOURCE --beside stable-diffusion-stability-ai=DIR --beside generative-models=DIR \
        --beside k-diffusion=DIR --beside BLIP=DIR --beside stable-diffusion-webui-assets=DIR
    python tests/webui/prepare_host.py OUT --host FORGE_SOURCE --beside huggingface_guess=DIR --beside BLIP=DIR --beside stable-diffusion-webui-assets=DIR

Which commits: docs/hosts.md. OUT then holds host/, venv/ and checkpoint/; the packages take some minutes. Nothing is changed in the sources.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

# These want another torch, or packages that do; they are installed without what they want.
ALONE = ("accelerate", "facexlib", "kornia", "open-clip-torch", "pytorch_lightning", "tomesd", "torchdiffeq", "torchsde", "spandrel", "clip-anytorch", "clean-fid", "resize-right", "setuptools", "diffusers", "peft")
MORE = ["ftfy", "regex", "filterpy", "opencv-python-headless<4.11", "scipy<1.14", "requests", "tqdm", "sentencepiece", "PyYAML", "fsspec", "joblib", "filelock", "sympy", "networkx"]
MORE_ALONE = ["torchmetrics==1.2.0", "lightning-utilities", "timm==0.9.12", "trampoline"]
# The registry's CPU build of torch has no torchvision operators; the hosts' imports need these names to exist.
OPERATORS = """

if not _has_ops():
    _sparsedict = torch.library.Library("torchvision", "DEF")
    _sparsedict.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _sparsedict.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def name_of(line: str) -> str:
    return re.split(r"[=<>~!; ]", line.strip(), maxsplit=1)[0]


def install(python: Path, packages: list[str], *flags: str) -> None:
    subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *flags, *packages], check=True)


def make_environment(folder: Path, requirements: Path, forge: bool) -> Path:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin/python"
    lines = [line.split("#")[0].strip() for line in requirements.read_text().splitlines()]
    wanted = [line for line in lines if line and name_of(line) != "torch"] + ([] if forge else ["clip-anytorch==2.6.0"])
    install(python, ["setuptools<81", "wheel", "torch==2.13.0"])
    install(python, [line for line in wanted if name_of(line) not in ALONE] + MORE)
    install(python, [line for line in wanted if name_of(line) in ALONE] + MORE_ALONE + ["torchvision==0.28.0"], "--no-deps")
    extension = next(folder.glob("lib/python*/site-packages/torchvision/extension.py"))
    with extension.open("a") as file:
        file.write(OPERATORS)
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--host", type=Path, required=True)
    parser.add_argument("--beside", action="append", default=[], metavar="NAME=DIR")
    arguments = parser.parse_args()
    out, host = arguments.out.resolve(), arguments.out.resolve() / "host"
    shutil.copytree(arguments.host, host, ignore=shutil.ignore_patterns(".git", "models", "extensions", "outputs"))
    for pair in arguments.beside:
        name, _, source = pair.partition("=")
        shutil.copytree(source, host / "repositories" / name, ignore=shutil.ignore_patterns(".git"))
    forge = (host / "modules_forge").is_dir()
    (host / "extensions").mkdir(exist_ok=True)
    python = make_environment(out / "venv", host / "requirements_versions.txt", forge)
    maker = Path(__file__).with_name("make_checkpoint.py")
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    subprocess.run([python, maker, host, out / "checkpoint", *(["--forge"] if forge else [])], check=True, env={**environment, "HF_HUB_OFFLINE": "1"})


if __name__ == "__main__":
    main()
