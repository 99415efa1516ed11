"""E6 in small: a base of a few steps, one adapter and one LoRA, the parts of the result, the figure and the table."""

import pytest
import torch

pytest.importorskip("sklearn")

from sparsedict.benchmarks.digits import measures, queue, tables
from sparsedict.benchmarks.digits.base import LAYERS, SIDE, DigitsBackend, DigitsTransformer
from sparsedict.benchmarks.result_table import read_results
from sparsedict.evaluation.peers import size_for
from sparsedict.sparsedict_core import SparseAdapter, discover_sites
from sparsedict.trainer import TrainConfig


def test_our_numbers_and_those_of_lora():
    backend = DigitsBackend(DigitsTransformer())
    config = TrainConfig(atoms=measures.ATOMS, rank=measures.RANK).adapter_config()
    sites = discover_sites(backend.denoiser).sites
    ours = SparseAdapter.create(backend.denoiser, sites, config, backend.component).parameter_count()
    assert ours == measures.PARAMETERS and len(sites) == LAYERS
    rank = size_for("lora", ours, backend)
    assert ours <= rank * 2 * 64 * LAYERS


def test_a_caption_is_a_digit_and_guidance_1_is_the_conditional_model():
    backend = DigitsBackend(DigitsTransformer())
    assert backend.encode_captions(["3", ""])["label"].tolist() == [3, 10]
    noise = torch.randn(2, 1, SIDE, SIDE)
    assert backend.sample(["3", "8"], noise, steps=2).shape == noise.shape
    assert backend.decode(noise).shape == (2, 3, SIDE, SIDE)


def test_evidence_is_resumed_and_makes_its_table_and_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(measures, "PICTURES", {"search": (4, 2), "report": (4, 2)})
    monkeypatch.setattr(measures, "ENOUGH", 0.0)
    said = []
    settings = {"seeds": 1, "rates": (1e-2,), "steps": 3, "base_steps": 3, "figure": tmp_path / "digits.png"}
    queue.evidence(tmp_path / "cache", tmp_path / "results", said.append, **settings)
    found = read_results("E6", tmp_path / "results")
    assert len(found) == 2 * len(queue.METHODS)
    ours = next(r for r in found if r["run"]["method"] == "ours" and r["run"]["split"] == "report")
    assert ours["atoms"] == LAYERS * measures.ATOMS and ours["fewest_atoms"] == {"greedy": 1, "importance": 1}
    assert (tmp_path / "digits.png").stat().st_size < 200_000
    text = tables.digits(found)
    assert all(name in text for name in tables.NAMES.values())
    monkeypatch.setattr(queue, "measure", None)  # nothing is left to do
    queue.evidence(tmp_path / "cache", tmp_path / "results", said.append, **settings)


def test_the_best_rate_is_the_quietest_of_the_near_best():
    def result(method, rate, changed, own):
        return {"run": {"method": method, "rate": rate}, "changed": changed, "own": own}

    found = [result("ours", 1, 0.95, 0.80), result("ours", 2, 0.94, 0.90), result("ours", 3, 0.5, 1.0), result("lora", 4, 0.2, 0.2)]
    assert queue.best_rates(found) == {"ours": 2, "lora": 4}
