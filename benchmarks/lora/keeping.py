"""E9: a LoRA of the demo world taken apart: what is kept of it converted, with fewer atoms in each order and rotation, gated, and as a LoRA again."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from ...demo_model.glyphs import GLYPHS
from ...evaluation.machine import machine
from ...evaluation.suite import Suite
from ...lora.at_work import order_by_prompts, sampled_coefficients
from ...lora.base import open_base
from ...lora.convert import lora_to_adapter
from ...lora.exporting import export_lora
from ...lora.rotations import ROTATIONS, rotated
from ...sparsedict_core import Selection, SparseAdapter, prune, select
from ...sparsedict_core.greedy import energy_kept
from ...tools.make_demo_images import concept_data
from ...tools.make_demo_lora import kohya_tensors, train_lora
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


def measure(results: Path, concepts: Sequence[str] = CONCEPTS, seeds: int = SEEDS, say: Callable[[str], None] = print, steps: int = 300) -> None:
    """One result a concept and seed; those that are there are not made again."""
    backend, kept = DemoBackend.load(), ResultTable(TABLE, results)
    for seed in range(seeds):
        for concept in concepts:
            if kept.get(key := f"{concept}-{seed}-{steps}") is None:
                began = time.perf_counter()
                kept.put(key, taken_apart(backend, concept, seed, steps))
                say(f"{concept}, seed {seed}: {time.perf_counter() - began:.0f} s")


def taken_apart(backend: DemoBackend, concept: str, seed: int, steps: int) -> dict[str, Any]:
    """All rows of one LoRA."""
    data, suite, base = concept_data(concept), Suite(backend.pipeline, GLYPHS[concept]), open_base("demo")
    captions = [text for item in data.items for text in item.captions][:PROMPTS]
    rows: list[dict[str, Any]] = []

    def row(adapter: SparseAdapter, what: str, **more: Any) -> None:
        with adapter.attach(backend.denoiser, component=backend.component):
            score = suite.score().to_dict()
        rows.append({"what": what, **more, "atoms": adapter.atom_count, "numbers": numbers(adapter), **score})

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lora.safetensors"
        lora = train_lora(backend, data, steps, seed=seed, word=concept)
        file.write_bytes(save(kohya_tensors(lora), metadata={"modelspec.trigger_phrase": concept}))
        rows.append({"what": "lora", "atoms": 0, "numbers": sum(a.numel() + b.numel() for a, b in lora.values()), **through_peft(backend, lora, suite)})
        whole, _ = lora_to_adapter(file, base)
        row(whole, "converted")
        for share in SHARES:
            row(prune(whole, select(whole, Selection(keep=share, per_site=True))), "svd", share=share)
        samples = sampled_coefficients(whole, backend, captions, seed=900)
        for rotation in ROTATIONS:
            turned = rotated(whole, samples, rotation)
            # All rotations are calibrated alike, on other noise than that which turned them.
            order_by_prompts(turned, backend, captions, seed=910)
            rows.append({"what": "readability", "rotation": rotation, **readability(turned, sampled_coefficients(turned, backend, captions, seed=920))})
            for order in ("importance", "greedy"):
                for share in SHARES:
                    kept = select(turned, Selection(keep=share, order=order), refit=order == "greedy")
                    row(prune(turned, kept, refit=order == "greedy"), "pruned", rotation=rotation, order=order, share=share)
        gated = gate(whole, backend, data=data, seed=seed, callbacks=Callbacks())
        row(gated.adapter, "gated", missed=gated.missed, quiet=gated.quiet)
        config = TrainConfig(cache=folder, seed=seed, quiet_samples=HEAL_QUIET_SAMPLES)
        inputs = collected(gated.adapter, backend, config, training_sets(config, backend, gated.adapter, data, Callbacks()))
        for rank in (8, None):
            out = Path(folder) / f"back{rank}.safetensors"
            report = export_lora(gated.adapter, out, rank=rank, samples=lambda: inputs)
            row(lora_to_adapter(out, base)[0], "gated, as a LoRA", rank=rank or report.ranks[1], error=report.error)
    return {"concept": concept, "seed": seed, "steps": steps, "rows": rows, "machine": machine()}


def through_peft(backend: DemoBackend, lora: Mapping[str, tuple[Tensor, Tensor]], suite: Suite) -> dict[str, float]:
    """The LoRA as peft applies it, unmerged."""
    state = {f"{path}.lora_{side}.weight": tensor for path, pair in lora.items() for side, tensor in zip("AB", pair)}
    backend.denoiser.load_lora_adapter(state, prefix=None, adapter_name="measured")
    try:
        return suite.score().to_dict()
    finally:
        backend.denoiser.unload_lora()


def numbers(adapter: SparseAdapter) -> int:
    """What a LoRA of these atoms would hold: none of a linear dictionary's biases."""
    return sum(site.encoder_weight.numel() + site.dictionary_weight.numel() for site in adapter.sites.values())


def readability(adapter: SparseAdapter, coefficients: Mapping[str, Tensor]) -> dict[str, float]:
    """The smallest share of atoms, most important first, that holds 90 % of the change's energy; the share of tokens that hold half of an
    atom's energy; and how alike the places are at which two atoms of a site act (mean cosine of |C|, 0 to 1)."""
    low, high = 0, adapter.atom_count
    while low < high:
        middle = (low + high) // 2
        kept = energy_kept(adapter, select(adapter, Selection(top=middle)).masks)
        low, high = (low, middle) if kept is not None and kept >= 0.9 else (middle + 1, high)
    overlaps, places = [], []
    for c in coefficients.values():
        size = c.abs() / c.norm(dim=0).clamp(min=1e-12)
        if size.shape[1] > 1:
            cosines = size.T @ size
            overlaps.append(float((cosines.sum() - cosines.trace()) / (len(cosines) * (len(cosines) - 1))))
        energy = c.square().sort(dim=0, descending=True).values.cumsum(0)
        places.append(float(((energy < 0.5 * energy[-1]).sum(0) / len(c)).mean()))
    return {"atoms_for_90": low / adapter.atom_count, "overlap": sum(overlaps) / len(overlaps), "places_of_half": sum(places) / len(places)}
