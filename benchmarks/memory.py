"""What `plan` says against what a step takes: `python -m sparsedict.benchmarks.memory`, a process for each model.

Random weights in the published shapes, or with fewer layers of them; one training step with a new adapter and Adam, then one sampling
step. On a GPU the peak is the allocator's, on a CPU the process's own (Linux), less what it had before the model. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.config import AdapterConfig
from ..trainer import TrainConfig
from ..trainer.backends.diffusers_common import DiffusersBackend
from ..trainer.footprint import ModelShapes, blank_batch, measured
from ..trainer.forward import noise_loss
from ..trainer.optimisers import make_optimiser
from ..trainer.policy import Footprint, peak
from .layer.models import fill, no_initialisation

#: Name, layers of the denoiser (none: all), pixels, held in: what a CPU does in minutes. bf16 is emulated there, so fp32.
SMALL = (
    ("sd15", {}, 64, "fp32"),
    ("sd15", {}, 256, "fp32"),
    ("flux", {"num_layers": 1, "num_single_layers": 1}, 128, "fp32"),
    ("flux", {"num_layers": 1, "num_single_layers": 2}, 256, "int8"),
    ("z_image", {"n_layers": 2}, 128, "fp32"),
)
#: The accepted sizes, for a GPU.
FULL = (("sdxl", {}, 1024, "bf16"), ("z_image", {}, 1024, "bf16"), ("flux2-klein-4b", {}, 1024, "bf16"), ("flux", {}, 1024, "int8"))
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Peak:
    """The most bytes since the last `again`, beyond what there was at the beginning."""

    def __init__(self, device: torch.device) -> None:
        gc.collect()
        self.device = device
        self.before = torch.cuda.memory_allocated(device) if device.type == "cuda" else self._status("VmRSS")

    def again(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark begins anew

    def bytes(self) -> int:
        now = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else self._status("VmHWM")
        return now - self.before

    def _status(self, name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def made(shapes: ModelShapes, device: torch.device, dtype: torch.dtype, weights: str) -> DiffusersBackend:
    """The backend with random weights, on the device."""
    with no_initialisation(), torch.device(device):
        backend = shapes.backend(dtype, contextlib.nullcontext())
    # Memory that nothing was written to is not there yet, so a model that fits only in int8 is made part by part.
    for part in (block for child in backend.denoiser.children() for block in (child if isinstance(child, nn.ModuleList) else (child,))):
        fill(part)
        if weights == "int8":
            in_int8(part)
    backend.denoiser.requires_grad_(False)
    backend.device = device
    return backend


def in_int8(part: nn.Module) -> None:
    """Its Linears hold int8 weights from here on."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(part, Int8WeightOnlyConfig())


def planned(model: Footprint, weights: str, computed: torch.dtype) -> int:
    """`plan`'s figure for one row with recomputed blocks. It has all but fp32 compute in bf16; what computes in fp32 takes twice that."""
    wider = weights != "fp32" and computed == torch.float32
    return peak(model, weights, 1, True) + wider * (model.row_recomputed + 2 * (model.parameters - model.linear) + 2 * model.largest_linear)


def measure(name: str, layers: dict[str, int], side: int, weights: str, device: torch.device) -> dict[str, Any]:
    """One training step of one row with recomputed blocks, and one sampling step, in this process."""
    shapes = ModelShapes.published(name)
    shapes = replace(shapes, config={**shapes.config, **layers})
    computed = TYPES.get(weights) or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    footprint = measured(shapes, side, AdapterConfig(), torch.bfloat16)
    memory = Peak(device)
    backend = made(shapes, device, computed, weights)
    adapter = SparseAdapter.create(backend.denoiser, backend.watch().sites, AdapterConfig(), backend.component).trainable().to(device)
    optimiser = make_optimiser(TrainConfig(), [parameter for _, parameter in adapter.trainable_parameters()])
    backend.denoiser.enable_gradient_checkpointing()
    batch = blank_batch(backend, 1, side).to(device, computed)
    memory.again()
    began = time.time()
    with adapter.attach(backend.denoiser, component=backend.component):
        noise_loss(TrainConfig(), backend, batch).backward()
        optimiser.step()
        step, trained = memory.bytes(), time.time()
        optimiser.zero_grad()
        memory.again()
        with torch.no_grad():
            backend.predict(batch.latents, batch.levels, batch.conditioning)
        sampling, sampled = memory.bytes(), time.time()
    return {
        "model": name, "layers": layers, "side": side, "weights": weights, "device": device.type, "parameters": footprint.parameters,
        "planned": planned(footprint, weights, computed), "step": step, "sampling": sampling, "seconds": [trained - began, sampled - trained],
    }  # fmt: skip


def line(found: dict[str, Any]) -> str:
    what = ", ".join([found["model"], *(f"{name} {count}" for name, count in found["layers"].items()), f"{found['side']}²", found["weights"]])
    error = found["planned"] / found["step"] - 1
    return (
        f"{what}: {found['parameters'] / 1e9:.2f}·10⁹ parameters; a training step takes {found['step'] / 1e9:.2f} GB, plan says {found['planned'] / 1e9:.2f} GB "
        f"({error:+.0%}); a sampling step {found['sampling'] / 1e9:.2f} GB; {found['seconds'][0]:.1f} s and {found['seconds'][1]:.1f} s on {found['device']}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="the whole published models; meant for a GPU")
    parser.add_argument("--only", nargs=3, metavar=("MODEL", "SIDE", "WEIGHTS"), help="one whole model, such as sdxl 256 fp32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(*json.loads(given.one), torch.device(given.device))))
        return
    runs = [(given.only[0], {}, int(given.only[1]), given.only[2])] if given.only else FULL if given.full else SMALL
    for run in runs:
        command = [sys.executable, "-m", "sparsedict.benchmarks.memory", "--device", given.device, "--one", json.dumps(run)]
        # glibc keeps what is freed of its heap, where each tensor below its threshold lies; no card's allocator is like that.
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"})
        if done.returncode:
            print(f"{run[0]}: failed with {(done.stderr.strip().splitlines() or ['no word'])[-1]}", flush=True)
        else:
            print(line(json.loads(done.stdout.strip().splitlines()[-1])), flush=True)


if __name__ == "__main__":
    main()
