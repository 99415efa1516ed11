"""The demo from end to end, with a few steps and pictures: what its report and its page hold."""

import json
import re

import pytest

from sparsedict.demo.plan import Plan
from sparsedict.demo.study import mean_of, run_study

SMALL = Plan(
    steps=4, shares=(0.1,), edit_shares=(1.0, 0.1), edit_strengths=(1.0,), slider_parts=2, sampling_steps=2, drift_prompts=4,
    training={"quiet_samples": 8, "quiet_sampling_steps": 2, "batch_size": 4},
)  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    run_study(out, seeds=2, plan=SMALL)
    return out


def test_report_has_what_the_readme_promises(demo):
    report = json.loads((demo / "report.json").read_text())
    measures = {"concept_fidelity", "prompt_fidelity", "drift"}
    assert measures | {"atoms_total", "train_seconds", "adapter_bytes", "slider_spearman", "merge", "style", "two_concepts", "peak_memory_bytes"} <= report.keys()
    assert measures <= report["lora"].keys() and measures <= report["lora_quiet"].keys()
    assert {(row["share"], row["order"]) for row in report["pruning"]} == {(s, o) for s in (1.0, *SMALL.shares) for o in ("importance", "greedy")}
    assert [row["importance"] for row in report["slider"]] == [0.0, 0.5, 1.0]
    assert [row["share"] for row in report["slider"]] == sorted(row["share"] for row in report["slider"])
    assert [row.get("share", row.get("strength")) for row in report["edit"]] == [1.0, 0.1, 1.0]
    assert len(report["per_seed"]) == 2 and report["concept_fidelity"] == pytest.approx(
        sum(seed["ours"]["concept_fidelity"] for seed in report["per_seed"]) / 2
    )
    assert report["adapter_bytes"] == (demo / "zorp-small.safetensors").stat().st_size


def test_a_share_of_three_trainings_is_still_that_share():
    rows = [{"share": 0.1, "order": "greedy", "concept_fidelity": value} for value in (0.5, 0.6, 1.0)]
    assert mean_of(rows) == {"share": 0.1, "order": "greedy", "concept_fidelity": pytest.approx(0.7)}


def test_page_is_complete_in_itself(demo):
    page = (demo / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', page), "the page must not need another file or a network"
    assert "prefers-color-scheme" in page and 'name="viewport"' in page
    pictures = {part.split("<", 1)[0]: part.count("data:image/") for part in page.split("<h2>")[1:]}
    assert all(pictures[heading] for heading in pictures if heading not in ("Pruning",)), pictures
    assert pictures["The concept in a style"] > 12 and pictures["Two concepts in one picture"] == 10 and pictures["What it was shown"] == 5
