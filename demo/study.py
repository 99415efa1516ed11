"""The demo's stages, in order. All figures of the page are measured here, in this run."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..evaluation.machine import machine, peak_memory_bytes
from ..evaluation.peers import applied_peer, size_for, train_peer
from ..evaluation.pruning import pruned_scores
from ..evaluation.suite import Score, Suite, spearman
from ..sparsedict_core import Selection, SparseAdapter, save, select
from ..sparsedict_core.addresses import format_address
from ..trainer import ConceptData, TrainConfig
from ..trainer.backends.demo import DemoBackend
from ..trainer.callbacks import Callbacks
from ..trainer.distribution import Processes
from ..trainer.probing import probed
from ..trainer.training_sets import build_sets
from .editing import edit_stage
from .findings import CONCEPT, CONCEPTS, Concept, Study, settings, trained
from .page import save_first_picture, write_page
from .plan import Plan
from .stages import Clock
from .together import style_stage, two_concepts_stage

MAPPED_ATOMS = 4


def run_study(out: Path, seeds: int = 1, plan: Plan | None = None) -> dict[str, Any]:
    """All stages; writes the report's files and returns report.json's content."""
    plan, clock = plan or Plan(), Clock()
    out.mkdir(parents=True, exist_ok=True)
    with clock.stage("loading the embedded base model, and its own pictures", 20):
        backend = DemoBackend.load()
        backend.pipeline.autocast = plan.precision == "bf16"
        suite = Suite(backend.pipeline, CONCEPT, steps=plan.sampling_steps, others=plan.drift_prompts, grounds=plan.grounds)
        study = Study(out, plan, backend, suite, clock)
        first_pictures(study)
    per_seed = [one_seed(study, seed) for seed in range(seeds)]
    averaged(study, per_seed)
    edit_stage(study)
    style_stage(study)
    two_concepts_stage(study)
    study.report |= {
        "seeds": seeds,
        "steps": plan.steps,
        "precision": plan.precision,
        "seconds_by_stage": clock.seconds,
        "seconds": round(time.time() - clock.began, 1),
        "peak_memory_bytes": peak_memory_bytes(),
        "machine": machine(),
    }
    (out / "report.json").write_text(json.dumps(study.report, indent=1) + "\n")
    write_page(study)
    print(f"{out / 'report.html'} and report.json, {study.report['seconds']:.0f} s")
    return study.report


def first_pictures(study: Study) -> None:
    """The base's picture of an unknown word, for the same noise as later."""
    study.pictures["training"] = ConceptData.from_folder(CONCEPTS / CONCEPT)
    study.base_concept = study.suite.concept()


def one_seed(study: Study, seed: int) -> dict[str, Any]:
    """Our adapter, its pruning, and LoRA plain and quiet, on the concept; one seed."""
    suffix = f", seed {seed}" if seed else ""
    config = settings(study, CONCEPT if seed == 0 else f"{CONCEPT}-seed{seed}", "concept", seed, placeholder=CONCEPT)
    found: dict[str, Any] = {}
    with study.clock.stage(f"training an adapter on 5 pictures{suffix}", 50):
        result = trained(config, study, CONCEPTS / CONCEPT)
    adapter = result.adapter
    with study.clock.stage(f"measuring it, pruned and as a slider{suffix}", 45):
        with adapter.attach(study.backend.denoiser, component="transformer") as attachment:
            reached = study.suite.concept()
            if seed == 0:
                study.pictures["concept"] = reached[2]
                print(f"         the first pictures are there: {save_first_picture(study)}", flush=True)
            ours = Score(*reached[:2], *study.suite.drift())
            found["ours"] = asdict(ours)
            found["slider"] = slider(study, adapter, attachment, reached, keep_pictures=seed == 0)
            if seed == 0:
                study.pictures["fires"] = where_it_fires(study, attachment)
        found["pruning"] = pruning(study, adapter, ours)
        found |= {"train_seconds": result.seconds, "parameters": adapter.parameter_count()}
    if seed == 0:
        study.pictures |= {"adapter": adapter, "log": result.log}
        study.report["atoms_total"] = adapter.atom_count
        study.report["adapter_bytes"] = save(adapter, study.out / f"{CONCEPT}-small.safetensors", overwrite=True, moments=False).bytes
    sets, _ = build_sets(config, study.backend, ConceptData.from_folder(CONCEPTS / CONCEPT), Processes(study.backend.device), Callbacks())
    plan = study.plan
    for name, rate, weight in (("lora", plan.lora_rate, 0.0), ("lora_quiet", plan.lora_quiet_rate, plan.lora_quiet_weight)):
        with study.clock.stage(f"training LoRA{' with the quiet term' if weight else ''} for comparison{suffix}", 35):
            found[name] = peer(study, replace(config, quiet_weight=weight), sets, rate, found["parameters"], name if seed == 0 else None)
    return found


def slider(study: Study, adapter: SparseAdapter, attachment: Any, reached: Concept, keep_pictures: bool) -> list[dict[str, float]]:
    """Concept fidelity as atoms are added by importance, nothing but the gains changed. Without any it is the base's, with all it is
    what was `reached`; both were measured."""
    rows, strip = [], []
    ends = {0: study.base_concept, study.plan.slider_parts: reached}
    for step in range(study.plan.slider_parts + 1):
        # Equal parts of the importance: equal parts of the atoms would show nearly nothing after the first.
        part = step / study.plan.slider_parts
        result = select(adapter, Selection(importance_share=part))
        attachment.set_gains(result.gains())
        fidelity, prompt, images = ends.get(step) or study.suite.concept()
        rows.append({"importance": part, "share": result.kept / result.total, "concept_fidelity": fidelity, "prompt_fidelity": prompt})
        strip.append(images[0])
    attachment.set_gains(None)
    if keep_pictures:
        study.pictures["slider"] = strip
    return rows


def where_it_fires(study: Study, attachment: Any) -> tuple[Any, list[tuple[str, Any]]]:
    """A picture, and of the atoms that act most on it the address and the map of where."""
    prompt, noise = study.suite.prompts[0].caption, study.suite.noise[:1]
    picture, fired = probed(study.backend, attachment, prompt, noise, 0, 8, study.plan.sampling_steps, None, MAPPED_ATOMS)
    return picture, [(format_address(attachment.adapter, atom.key, atom.row), atom.map) for atom in fired if atom.map is not None]


def pruning(study: Study, adapter: SparseAdapter, whole: Score) -> list[dict[str, Any]]:
    """Fidelity and drift of really smaller adapters, in both orders, beside all atoms."""

    def row(share: float, order: str, score: Score, energy_kept: float | None, atoms: int) -> dict[str, Any]:
        return {"share": share, "order": order, "energy_kept": energy_kept, "atoms": atoms, **asdict(score)}

    return [row(1.0, order, whole, 1.0, adapter.atom_count) for order in ("importance", "greedy")] + [
        row(share, order, score, result.energy_kept, result.kept)
        for order, share, result, score in pruned_scores(study.suite, study.backend.denoiser, adapter, study.plan.shares)
    ]


def peer(study: Study, config: TrainConfig, sets: list, rate: float, parameters: int, picture: str | None) -> dict[str, Any]:
    """LoRA of as many parameters, trained and measured likewise."""
    rank = size_for("lora", parameters, study.backend)
    lora = train_peer(config, study.backend, sets, "lora", rank, rate)
    with applied_peer(study.backend, lora):
        fidelity, prompt, images = study.suite.concept()
        drift, flipped = study.suite.drift()
    if picture:
        study.pictures[picture] = images
    return {"concept_fidelity": fidelity, "prompt_fidelity": prompt, "drift": drift, "flipped": flipped, "learning_rate": rate,
            "train_seconds": lora.seconds, "parameters": lora.parameters, "rank": rank, "bytes": 2 * lora.parameters}  # fmt: skip


def mean_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Numbers averaged over seeds; anything else, and what is one number in all of them, from the first."""
    first = rows[0]
    same = {key for key, value in first.items() if all(row[key] == value for row in rows)}
    return {
        key: sum(row[key] for row in rows) / len(rows) if isinstance(value, float) and key not in same else value for key, value in first.items()
    }


def averaged(study: Study, per_seed: list[dict[str, Any]]) -> None:
    """Means over seeds into the report, and each seed's own values."""
    report = study.report
    report |= mean_of([s["ours"] for s in per_seed])
    for name in ("lora", "lora_quiet"):
        report[name] = mean_of([s[name] for s in per_seed])
    for name in ("pruning", "slider"):
        report[name] = [mean_of(list(rows)) for rows in zip(*(s[name] for s in per_seed), strict=True)]
    shares, fidelities = [r["share"] for r in report["slider"]], [r["concept_fidelity"] for r in report["slider"]]
    report["slider_spearman"] = spearman(shares, fidelities)
    report["train_seconds"] = sum(s["train_seconds"] for s in per_seed) / len(per_seed)
    report["parameters"] = per_seed[0]["parameters"]
    report["per_seed"] = [{name: s[name] for name in ("ours", "lora", "lora_quiet")} for s in per_seed]
