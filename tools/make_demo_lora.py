"""Trains the LoRA of the demo world that comes with the nodes, as any trainer would: peft, all attention and feed-forward Linears, no quiet term.

    python -m sparsedict.tools.make_demo_lora [--steps 300] [--out demo/loras/zorp.safetensors]

The file has kohya's spelling and fp16, like most that people have.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ..sparsedict_core.atomic_write import write_atomically
from ..trainer import PRESETS, ConceptData, TrainConfig
from ..trainer.backends.base import Backend
from ..trainer.backends.demo import DemoBackend
from ..trainer.batches import draw_batch
from ..trainer.callbacks import Callbacks
from ..trainer.distribution import Processes
from ..trainer.forward import noise_loss
from ..trainer.loop import build_sets
from ..trainer.optimisers import make_optimiser
from ..trainer.schedules import lr_factor
from .make_demo_images import concept_data

FOLDER = Path(__file__).parent.parent / "demo" / "loras"
RANK, ALPHA, RATE, STEPS = 8, 8.0, 1e-2, 300
ENDS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "net.0.proj", "net.2")


def train_lora(backend: Backend, data: ConceptData, steps: int = STEPS, rank: int = RANK, rate: float = RATE, seed: int = 0, word: str = "zorp") -> dict[str, tuple[Tensor, Tensor]]:
    """(down (r, d_in), up (d_out, r)) by module path, at scale alpha / rank = 1; the base is as before afterwards."""
    from peft import LoraConfig, inject_adapter_in_model

    model = backend.denoiser
    targets = [path for path, module in model.named_modules() if isinstance(module, nn.Linear) and path.endswith(ENDS) and "block" in path]
    with tempfile.TemporaryDirectory() as cache:
        config = TrainConfig(**{**PRESETS["concept"], "steps": steps, "seed": seed, "cache": Path(cache), "learning_rate": rate, "placeholder": word, "quiet_weight": 0.0, "quiet_samples": 0})
        # Before there is a LoRA on the base, which a backend may freeze as a whole.
        sets, _ = build_sets(config, backend, data, Processes(backend.device), Callbacks())
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=ALPHA, target_modules=targets), model)
        try:
            layers: dict[str, Any] = {path: model.get_submodule(path) for path in targets}
            parameters = [p for layer in layers.values() for p in (layer.lora_A["default"].weight, layer.lora_B["default"].weight)]
            optimiser = make_optimiser(replace(config, learning_rate=rate), parameters)
            generator = torch.Generator().manual_seed(seed)
            for step in range(steps):
                for group in optimiser.param_groups:
                    group["lr"] = rate * lr_factor(config, step)
                loss = noise_loss(config, backend, draw_batch(config, backend, sets, generator).to(backend.device, backend.dtype))
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
                optimiser.step()
            return {path: (layer.lora_A["default"].weight.detach().clone(), layer.lora_B["default"].weight.detach().clone()) for path, layer in layers.items()}
        finally:
            for path in targets:
                parent, _, child = path.rpartition(".")
                module: Any = model.get_submodule(path)
                setattr(model.get_submodule(parent), child, getattr(module, "base_layer", module))
            model.__dict__.pop("peft_config", None)


def kohya_tensors(lora: dict[str, tuple[Tensor, Tensor]], dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """In kohya's spelling, with the prefix under which loaders know diffusers' names of SD3's layout."""
    tensors = {}
    for path, (down, up) in lora.items():
        name = "lora_transformer_" + path.replace(".", "_")
        tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = down.to(dtype).contiguous(), up.to(dtype).contiguous()
        tensors[f"{name}.alpha"] = torch.tensor(ALPHA)
    return tensors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=FOLDER / "zorp.safetensors")
    arguments = parser.parse_args()
    lora = train_lora(DemoBackend.load(), concept_data("zorp"), arguments.steps)
    text = {"modelspec.title": "zorp", "modelspec.architecture": "demo/lora", "modelspec.trigger_phrase": "zorp"}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out, save(kohya_tensors(lora), metadata=text))
    print(f"{arguments.out}: {len(lora)} modules of rank {RANK}, {arguments.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
