"""E9: a LoRA of the demo world taken apart: what is kept of it converted, with fewer atoms in each order and rotation, gated, and as a LoRA again."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ...demo_model.pipeline import make_noise
from ...demo_model.scene import PLACES
from ...evaluation.machine import machine
from ...evaluation.suite import Suite
from ...lora.at_work import order_by_prompts, sampled_coefficients
from ...lora.base import open_base
from ...lora.convert import lora_to_adapter
from ...lora.exporting import export_lora
from ...lora.rotations import ROTATIONS, rotated
from ...sparsedict_core import Selection, SparseAdapter, prune, rank_atoms, select
from ...sparsedict_core.atomic_write import write_atomically
from ...sparsedict_core.greedy import energy_kept
from ...tools.make_demo_images import concept_data
from ...tools.make_demo_lora import train_lora
from ...trainer.backends.demo import DemoBackend
from ...trainer.callbacks import Callbacks
from ...trainer.config import TrainConfig
from ...trainer.gate import gate
from ...trainer.shrink import HEAL_QUIET_SAMPLES, collected, training_sets
from ..result_table import ResultTable
from ..world.plans import CONCEPTS

TABLE = "E9-lora"
SHARES = (0.5, 0.25, 0.10, 0.05)
SEEDS = 3
PROMPTS = 4
# A row's pictures: each place on two grounds, a few of its other prompts, and fewer steps, as a cell has 33 rows.
ASKED_ON, OTHERS, SAMPLING_STEPS = ("night", "sky"), 8, 8
PICTURES = len(PLACES) * len(ASKED_ON) + OTHERS
# The most important atoms, whose own changes of two pictures are compared.
LOOKED_AT = 12


def measure(
    part: str, results: Path, cache: Path, concepts: Sequence[str] = CONCEPTS, seeds: int = SEEDS, say: Callable[[str], None] = print, steps: int = 300
) -> None:  # fmt: skip
    """One result of a part, a concept and a seed; those that are there are not made again."""
    backend, kept = DemoBackend.load(), ResultTable(TABLE, results)
    for seed in range(seeds):
        for concept in concepts:
            if kept.get(key := f"{concept}-{seed}-{steps}-{part}") is None:
                began = time.perf_counter()
                rows = PARTS[part](backend, concept, trained(backend, concept, seed, steps, cache), seed)
                kept.put(key, {"concept": concept, "seed": seed, "steps": steps, "rows": rows, "machine": machine()})
                say(f"{concept}, seed {seed}, {part}: {time.perf_counter() - began:.0f} s")


def trained(backend: DemoBackend, concept: str, seed: int, steps: int, cache: Path) -> Path:
    """The LoRA's file, made once."""
    path = cache / f"lora-{concept}-{seed}-{steps}.safetensors"
    if not path.exists():
        lora = train_lora(backend, concept_data(concept), steps, seed=seed, word=concept)
        tensors = {f"transformer.{name}.lora_{side}.weight": tensor for name, pair in lora.items() for side, tensor in zip("AB", pair)}
        write_atomically(path, save(tensors, metadata={"modelspec.trigger_phrase": concept}))
    return path


def row(suite: Suite, adapter: SparseAdapter, what: str, **more: Any) -> dict[str, Any]:
    """The measures of a dictionary on the base."""
    with adapter.attach(suite.pipeline.transformer):
        return {"what": what, **more, "atoms": adapter.atom_count, "numbers": numbers(adapter), **suite.score().to_dict()}


def taken_apart(backend: DemoBackend, concept: str, file: Path, seed: int) -> list[dict[str, Any]]:
    """The LoRA, converted, and with fewer atoms."""
    suite, base = suite_of(backend, concept), open_base("demo")
    captions = [text for item in concept_data(concept).items for text in item.captions][:PROMPTS]
    whole, _ = lora_to_adapter(file, base)
    rows: list[dict[str, Any]] = [{"what": "lora", "atoms": 0, "numbers": numbers(whole), **through_peft(backend, file, suite)}, row(suite, whole, "converted")]
    for share in SHARES:
        rows.append(row(suite, prune(whole, select(whole, Selection(keep=share, per_site=True))), "svd", share=share))
    samples = sampled_coefficients(whole, backend, captions, seed=900)
    for rotation in ROTATIONS:
        turned = rotated(whole, samples, rotation)
        # All rotations are calibrated alike, on other noise than that which turned them.
        order_by_prompts(turned, backend, captions, seed=910)
        found = readability(turned, sampled_coefficients(turned, backend, captions, seed=920))
        rows.append({"what": "readability", "rotation": rotation, **found, "picture_overlap": picture_overlap(turned, backend, captions)})
        for order in ("importance", "greedy"):
            for share in SHARES:
                kept = select(turned, Selection(keep=share, order=order), refit=order == "greedy")
                rows.append(row(suite, prune(turned, kept, refit=order == "greedy"), "pruned", rotation=rotation, order=order, share=share))
    return rows


def with_thresholds(backend: DemoBackend, concept: str, file: Path, seed: int) -> list[dict[str, Any]]:
    """The LoRA gated, and what is left of that as a LoRA again."""
    suite, base, data = suite_of(backend, concept), open_base("demo"), concept_data(concept)
    gated = gate(lora_to_adapter(file, base)[0], backend, data=data, seed=seed, callbacks=Callbacks())
    rows = [row(suite, gated.adapter, "gated", missed=gated.missed, quiet=gated.quiet)]
    config = TrainConfig(seed=seed, quiet_samples=HEAL_QUIET_SAMPLES)
    inputs = collected(gated.adapter, backend, config, training_sets(config, backend, gated.adapter, data, Callbacks()))
    with tempfile.TemporaryDirectory() as folder:
        for rank in (8, None):
            out = Path(folder) / f"back{rank}.safetensors"
            report = export_lora(gated.adapter, out, rank=rank, samples=lambda: inputs)
            rows.append(row(suite, lora_to_adapter(out, base)[0], "gated, as a LoRA", rank=rank or report.ranks[1], error=report.error))
    return rows


PARTS = {"kept": taken_apart, "gated": with_thresholds}


def suite_of(backend: DemoBackend, concept: str) -> Suite:
    return Suite(backend.pipeline, concept, steps=SAMPLING_STEPS, others=OTHERS, grounds=ASKED_ON)


def through_peft(backend: DemoBackend, file: Path, suite: Suite) -> dict[str, float]:
    """The LoRA as diffusers and peft apply it, unmerged."""
    backend.denoiser.load_lora_adapter(load_file(str(file)), prefix="transformer", adapter_name="measured")
    try:
        return suite.score().to_dict()
    finally:
        backend.denoiser.unload_lora()


def numbers(adapter: SparseAdapter) -> int:
    """What a LoRA of these atoms would hold: none of a linear dictionary's biases."""
    return sum(site.encoder_weight.numel() + site.dictionary_weight.numel() for site in adapter.sites.values())


def readability(adapter: SparseAdapter, coefficients: Mapping[str, Tensor]) -> dict[str, float]:
    """The smallest share of atoms, most important first, that holds 90 % of the change's energy; and how alike the places are at which two
    atoms of a site act (mean cosine of |C|, 0 to 1)."""
    low, high = 0, adapter.atom_count
    while low < high:
        middle = (low + high) // 2
        kept = energy_kept(adapter, select(adapter, Selection(top=middle)).masks)
        low, high = (low, middle) if kept is not None and kept >= 0.9 else (middle + 1, high)
    overlaps = []
    for c in coefficients.values():
        if c.shape[1] > 1:
            size = c.abs() / c.norm(dim=0).clamp(min=1e-12)
            cosines = size.T @ size
            overlaps.append(float((cosines.sum() - cosines.trace()) / (len(cosines) * (len(cosines) - 1))))
    return {"atoms_for_90": low / adapter.atom_count, "overlap": sum(overlaps) / len(overlaps)}


@torch.no_grad()
def picture_overlap(adapter: SparseAdapter, backend: DemoBackend, captions: Sequence[str]) -> float:
    """How alike the places in a picture are that two atoms change: mean cosine of the sizes |Δ| by pixel, 0 to 1, over pairs of the most
    important atoms, each taken out by itself."""
    atoms = rank_atoms(adapter, "importance")[:LOOKED_AT]
    prompts = list(captions[:2])
    noise = make_noise(len(prompts), 930)
    with adapter.attach(backend.denoiser, component=backend.component) as attachment:
        whole = backend.pipeline.generate(prompts, noise=noise, steps=SAMPLING_STEPS)
        maps = []
        for key, atom in atoms:
            gains = torch.ones(adapter.sites[key].atoms)
            gains[atom] = 0
            attachment.set_gains({key: gains})
            maps.append((backend.pipeline.generate(prompts, noise=noise, steps=SAMPLING_STEPS) - whole).abs().mean(1).flatten())
    maps = torch.nn.functional.normalize(torch.stack(maps).double(), dim=1)
    cosines = maps @ maps.T
    return float((cosines.sum() - cosines.trace()) / (len(maps) * (len(maps) - 1)))
