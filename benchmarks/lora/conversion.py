"""How long a LoRA of SDXL's size takes to become a dictionary, and how much memory; what it costs at work beside the same LoRA in peft.

The conversion runs in a process of its own; its peak is counted from the moment when all is imported and the base is open.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ...evaluation.machine import machine
from ...lora.base import Base, open_base
from ...lora.convert import lora_to_adapter
from ..layer.models import denoiser_of, wide_model
from ..result_table import ResultTable
from ..timing import in_turns, paired_ratio, seconds_of

TABLE = "E9-conversion"
RANK = 16
_WORK = """
import json, resource, sys, time
import torch
torch.set_num_threads({threads})
import diffusers
from sparsedict.lora.base import open_base
from sparsedict.lora.convert import convert_file
base = open_base({base!r})
before, began, worked = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter(), time.process_time()
convert_file({lora!r}, base, {out!r}, dtype=torch.{dtype}, overwrite=True)
print(json.dumps([time.perf_counter() - began, time.process_time() - worked, 1024 * before, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


def sdxl_folder(folder: Path) -> Path:
    """SDXL's settings without its weights."""
    with torch.device("meta"):
        unet: Any = denoiser_of("sdxl", True)[0]
    unet.save_config(str(folder / "unet"))
    index = {"_class_name": "StableDiffusionXLPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def sdxl_lora(folder: Path, path: Path, rank: int = RANK) -> int:
    """A LoRA of all Linears in SDXL's transformer blocks, as kohya spells it, in fp16; returns the number of modules."""
    generator, tensors, count = torch.Generator().manual_seed(0), {}, 0
    for name, (d_in, d_out) in open_base(folder).places().widths.items():
        if ".transformer_blocks." not in name:
            continue
        key = "lora_unet_" + name.replace(".", "_")
        tensors[f"{key}.lora_down.weight"] = (0.02 * torch.randn(rank, d_in, generator=generator)).half()
        tensors[f"{key}.lora_up.weight"] = (0.02 * torch.randn(d_out, rank, generator=generator)).half()
        tensors[f"{key}.alpha"] = torch.tensor(rank / 2.0)
        count += 1
    save_file(tensors, str(path))
    return count


def converting(folder: Path, lora: Path, dtype: str, threads: int) -> dict[str, Any]:
    """Seconds, and the peak of bytes above what was there before, of a conversion in a process of its own."""

    made = folder / f"{dtype}.safetensors"
    code = _WORK.format(base=str(folder), lora=str(lora), out=str(made), dtype=dtype, threads=threads)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    seconds, cpu_seconds, before, after = json.loads(done.stdout.splitlines()[-1])
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": after - before, "file_bytes": lora.stat().st_size, "made_bytes": made.stat().st_size}


def measure(results: Path, say: Callable[[str], None] = print, threads: int = 2) -> None:
    """All of it, written as one result."""
    with tempfile.TemporaryDirectory(prefix="sparsedict-") as scratch:
        folder = sdxl_folder(Path(scratch))
        lora = folder / "lora.safetensors"
        modules = sdxl_lora(folder, lora)
        found: dict[str, Any] = {"modules": modules, "rank": RANK, "threads": threads, "machine": machine(), "date": time.strftime("%Y-%m-%d")}
        for dtype in ("float16", "float32"):
            found[dtype] = converting(folder, lora, dtype, threads)
            one = found[dtype]
            say(
                f"{modules} modules of rank {RANK}, {one['file_bytes'] / 1e6:.0f} MB, to {dtype}: {one['seconds']:.1f} s ({one['cpu_seconds']:.1f} s of CPU) on {threads} threads, "
                f"{one['peak_bytes'] / one['file_bytes']:.2f} × the file above the start"
            )
    found["applied"] = applied(say)
    ResultTable(TABLE, results).put("sdxl", found)


def applied(say: Callable[[str], None], repeats: int = 7) -> dict[str, Any]:
    """A denoiser's step at SDXL's widths, one thread: the base, the LoRA unmerged in peft, and the dictionary made of it, in turns."""
    torch.set_num_threads(1)
    model = wide_model("sdxl", torch.device("cpu"), torch.float32, full=False)
    base = Base.of(model.denoiser)
    widths = {path: wide for path, wide in base.places().widths.items() if ".transformer_blocks." in path}
    state: dict[str, torch.Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    for path in widths:
        d_in, d_out = widths[path]
        state[f"{path}.lora_A.weight"] = 0.02 * torch.randn(RANK, d_in, generator=generator)
        state[f"{path}.lora_B.weight"] = 0.02 * torch.randn(d_out, RANK, generator=generator)
    with tempfile.TemporaryDirectory() as folder:
        save_file(state, str(Path(folder) / "lora.safetensors"))
        adapter, _ = lora_to_adapter(Path(folder) / "lora.safetensors", base)
    inputs = model.inputs()

    def step() -> float:
        with torch.inference_mode():
            return seconds_of(lambda: model.run(inputs))

    def in_peft() -> float:
        model.denoiser.load_lora_adapter(dict(state), prefix=None, adapter_name="measured")
        try:
            return step()
        finally:
            model.denoiser.unload_lora()

    def ours() -> float:
        with adapter.attach(model.denoiser, component=base.component):
            return step()

    times = in_turns({"base": step, "peft": in_peft, "dictionary": ours}, repeats)
    found = {"sites": len(widths), **times, "ratio": paired_ratio(times["all"], "dictionary", "peft")}
    say(f"applied at {len(widths)} Linears: {found['ratio']:.3f} × peft's unmerged LoRA (base {times['seconds']['base']:.2f} s, peft {times['seconds']['peft']:.2f} s)")
    return found
