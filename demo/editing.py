"""One picture and its caption; then prompts that ask for something else, as atoms go, and LoRA as its strength goes."""

from __future__ import annotations

from ..evaluation.editing import EditSuite
from ..evaluation.peers import applied_peer, size_for, train_peer
from ..evaluation.suite import Suite
from ..sparsedict_core import Selection, select
from ..trainer import ConceptData
from ..trainer.callbacks import Callbacks
from ..trainer.distribution import Processes
from ..trainer.training_sets import build_sets
from .findings import CONCEPTS, EDITED, Study, settings, trained

BATCH = 4  # one picture: more rows a step keep no more of it


def edit_stage(study: Study) -> None:
    """Into `edit` of the report: a row a share of the atoms, and a row a strength of LoRA."""
    name, plan = f"{EDITED}-edit", study.plan
    editing = EditSuite(Suite(study.pipeline, EDITED, 900, plan.sampling_steps, plan.drift_prompts // 2), 901)
    config = settings(study, name, "edit", 0, batch_size=BATCH)
    rows, strips = [], {}
    with study.clock.stage("editing: training on one picture", 20):
        adapter = trained(config, study, CONCEPTS / name).adapter
    with study.clock.stage("editing: other prompts, fewer atoms", 25):
        for share in plan.edit_shares:
            with adapter.attach(study.backend.denoiser, component="transformer") as attachment:
                attachment.set_gains(select(adapter, Selection(keep=share)).gains())
                score = editing.score()
            strips[f"{share:.0%} of the atoms"] = score.images
            rows.append({"method": "sparse dictionary", "share": share, **score.means()})
    data = ConceptData.from_folder(CONCEPTS / name)
    sets, _ = build_sets(config, study.backend, data, Processes(study.backend.device), Callbacks())
    with study.clock.stage("editing: LoRA likewise, lower strength", 35):
        rate = plan.edit_lora_rate
        lora = train_peer(config, study.backend, sets, "lora", size_for("lora", adapter.parameter_count(), study.backend), rate)
        for strength in plan.edit_strengths:
            with applied_peer(study.backend, lora, strength):
                score = editing.score()
            strips[f"LoRA at {strength:g}"] = score.images
            rows.append({"method": "lora", "strength": strength, "learning_rate": rate, **score.means()})
    study.report["edit"] = rows
    study.pictures |= {"edit": strips, "edit_training": data, "edit_prompts": editing.prompts, "edit_kinds": editing.kinds}
