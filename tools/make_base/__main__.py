"""Train the embedded base from nothing: codec, transformer and words, reader; measure what it draws, and write it into demo_model/.

    python -m sparsedict.tools.make_base --work .work/base --minutes 150            on a CPU, goes on where it stopped
    python -m sparsedict.tools.make_base --work $OUT --minutes 7 --device cuda          on a GPU

The minutes are the base's own, over all calls; decoder and reader take `--more` in each call. Writes state, codec and reader (.safetensors, in fp32),
report.json and a contact sheet of each kind of scene into the folder; the fp16 files and the model card into demo_model/ (`--stage export` alone too).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...demo_model.compositor import Atlas
from ...sparsedict_core.atomic_write import write_atomically
from .check_base import check_base
from .export import export
from .parts import load_codec
from .pool import make_pool
from .train_base import train_base
from .train_codec import fit_codec, train_decoder
from .train_reader import check_reader, load_reader, train_reader

SCENES = {"cpu": 200_000, "cuda": 2_000_000}
BATCH = {"cpu": 128, "cuda": 512}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make_base", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(".work/base"))
    parser.add_argument("--minutes", type=float, default=150, help="of the base's training, over all calls")
    parser.add_argument("--more", type=float, help="minutes for the decoder and for the reader; a seventh of --minutes without it")
    parser.add_argument("--device", default="cpu", choices=list(SCENES))
    parser.add_argument("--scenes", type=int, help="how many are drawn from")
    parser.add_argument("--samples", type=int, default=512, help="of each kind, for the measures")
    parser.add_argument("--stage", choices=("base", "decoder", "reader", "check", "export"), help="this one alone")
    arguments = parser.parse_args()
    work, device = arguments.work, torch.device(arguments.device)
    more = arguments.minutes / 7 if arguments.more is None else arguments.more
    work.mkdir(parents=True, exist_ok=True)

    def wanted(stage: str) -> bool:
        return arguments.stage in (None, stage)

    atlas = Atlas(device, recut=True)
    pool = make_pool(arguments.scenes or SCENES[device.type], device, processes=os.cpu_count() or 1) if wanted("base") or wanted("decoder") else None
    codec = load_codec(work, device) if (work / "codec.safetensors").exists() else fit_codec(work, atlas, pool or make_pool(4096, device)).to(device)
    path = work / "report.json"
    report = json.loads(path.read_text()) if path.exists() else {}

    def keep() -> None:
        write_atomically(path, json.dumps(report, indent=1).encode())

    if pool is not None and wanted("base"):
        # On a processor the backward of the fused attention is slow for so few tokens.
        with sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else contextlib.nullcontext():
            report["base"] = train_base(work, codec, atlas, pool, arguments.minutes, device, BATCH[device.type], compiled=device.type == "cuda")
        keep()
    if pool is not None and wanted("decoder"):
        report["codec"] = train_decoder(work, codec, atlas, pool, more, device)
        keep()
    if wanted("reader"):
        report["reader"] = train_reader(work, codec, atlas, more, device)
        keep()
    if wanted("check"):
        reader = load_reader(work, device)
        report["reader"] = check_reader(reader, codec, atlas, device)
        report["drawn"] = check_base(work, codec, reader, atlas, device, arguments.samples)
        keep()
    if wanted("export"):
        export(work)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
