"""E7's pieces on narrow models: every variant comes on and goes off, ratios are of the same rounds, tables hold what was measured."""

from pathlib import Path

import pytest
import torch
from torch import nn

import sparsedict.sparsedict_core as core
from sparsedict.benchmarks.layer import models as wide_models
from sparsedict.benchmarks.layer import speed as layer_speed
from sparsedict.benchmarks.layer import tables as speed_tables
from sparsedict.benchmarks.layer.variants import equal_atoms, lora_parameters, our_parameters, variants
from sparsedict.benchmarks.result_table import ResultTable
from sparsedict.benchmarks.timing import in_turns, paired_difference, paired_ratio, peak_bytes
from sparsedict.sparsedict_core import discover_sites


def narrow(name, full):
    """SD3's class, a hundredth of its width."""
    import diffusers

    return diffusers.SD3Transformer2DModel(
        sample_size=8, num_layers=2, attention_head_dim=32, num_attention_heads=2, joint_attention_dim=4096, caption_projection_dim=64, pos_embed_max_size=8,
    ), "transformer"  # fmt: skip


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(wide_models, "denoiser_of", narrow)
    monkeypatch.setattr(layer_speed, "denoiser_of", narrow)
    monkeypatch.setattr(wide_models, "SIZES", {"sd3-medium": (8, 4)})
    return wide_models.wide_model("sd3-medium", torch.device("cpu"), torch.float32, False)


def test_all_variants_leave_the_base_as_it_was(model):
    inputs, sites = model.inputs(), discover_sites(model.denoiser).sites
    with torch.no_grad():
        base = model.run(inputs)
    assert base.isfinite().all()
    found = variants(model, sites, [(64, 64)] * len(sites), None)
    assert [v.name for v in found][:5] == ["base", "lora", "dora", "oft", "ours_equal"] and len(found) == 14
    for variant in found:
        for training in (False, True):
            with variant.on(training) as worker, torch.no_grad():
                assert bool(worker.parameters) == (training and variant.name != "base")
        with torch.no_grad():
            assert torch.equal(model.run(inputs), base)


def test_equal_numbers_are_no_more_than_loras():
    for widths in ([(1536, 1536)] * 3, [(3072, 3072), (15360, 3072)], [(640, 640), (1280, 1280)]):
        atoms = equal_atoms(widths)
        assert 0.95 * lora_parameters(widths) < our_parameters(widths, atoms, 15) <= lora_parameters(widths)


@pytest.mark.parametrize("part", layer_speed.PARTS)
def test_rows_and_tables(model, monkeypatch, tmp_path, part):
    monkeypatch.setattr(layer_speed, "dtypes", lambda device: [torch.float32])
    layer_speed.measure([part], ["sd3-medium"], tmp_path, True, None, lambda text: None)
    result = ResultTable("E7-layer", tmp_path).lines()["sd3-medium-cpu"]
    assert ("selection" if part == "change" else "ours, 128 atoms") in speed_tables.layer_speed([result])


def test_a_part_alone_leaves_the_others(monkeypatch, tmp_path):
    kept = ResultTable("E7-layer", tmp_path)
    monkeypatch.setattr(layer_speed, "dtypes", lambda device: [torch.float32])
    for value, parts in ((1, ["steps", "change"]), (2, ["change"])):
        monkeypatch.setattr(layer_speed, "rows_of", lambda name, parts, *_, value=value: ({"what": part, "value": value} for part in parts))
        layer_speed.measure(parts, ["sd3-medium"], tmp_path, False, None, lambda text: None)
    assert [(row["what"], row["value"]) for row in kept.lines()["sd3-medium-cpu"]["rows"]] == [("steps", 1), ("change", 2)]
    # Another machine's times stand beside none of this one.
    kept.path.write_text(kept.path.read_text().replace(torch.__version__, "another"))
    layer_speed.measure(["change"], ["sd3-medium"], tmp_path, False, None, lambda text: None)
    assert [row["what"] for row in kept.lines()["sd3-medium-cpu"]["rows"]] == ["change"]


def test_another_core_is_measured_beside_this_one(model):
    found = variants(model, discover_sites(model.denoiser).sites, [(64, 64)] * 3, Path(core.__file__).parent, {"ours_128"})
    assert [v.name for v in found] == ["base", "ours_128", "ours_128 before"]
    for variant in found[1:]:
        with variant.on(True) as worker:
            layer_speed.training_step(worker, None, lambda done: done())
    assert speed_tables.name_of("ours_128_10% before") == "ours, 128 atoms, 10 % of them kept, before"


def test_timing():
    times = iter([1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 5.0, 11.0])
    result = in_turns({"a": lambda: next(times), "b": lambda: next(times)}, 3, collect=False)
    assert result["all"] == {"a": [3.0, 10.0, 5.0], "b": [4.0, 20.0, 11.0]} and result["seconds"]["b"] == 11.0
    assert paired_ratio(result["all"], "b", "a") == 2.0 and paired_difference(result["all"], "b", "a") == 6.0
    assert 4_000_000 <= peak_bytes(lambda: torch.zeros(1_000_000) + 1) <= 8_100_000


def test_filled_models_have_weights_of_the_usual_size():
    with wide_models.no_initialisation():
        linear = nn.Linear(100, 50)
    wide_models.fill(linear)
    assert 0.05 < float(linear.weight.detach().std()) < 0.065 and float(linear.bias.detach().abs().max()) <= 0.1
