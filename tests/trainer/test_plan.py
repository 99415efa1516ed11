"""Memory from shapes: counted on fake tensors as on real ones, the same numbers for `plan`, the command line and the node."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from tiny_pipelines import PIPELINES, SIDE, save_tiny

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.errors import TrainingError
from sparsedict.sparsedict_core.site_discovery import discover_sites
from sparsedict.trainer import Callbacks, ConceptData, TrainConfig, fit, policy, train
from sparsedict.trainer.backends.full_sizes import FULL_SIZES
from sparsedict.trainer.backends.open_diffusers import BACKENDS, open_diffusers
from sparsedict.trainer.backends.swapped_blocks import repeated_blocks
from sparsedict.trainer.footprint import blank_batch, footprint_of, step_peak
from sparsedict.trainer.forward import noise_loss
from sparsedict.trainer.peak import PeakMemory
from sparsedict.trainer.policy import Fit, batch_for, choose, known, sampling_rows, settle, table, usable, ways, weight_bytes

CPU = torch.device("cpu")


def test_the_peak_is_the_most_that_lives_at_once():
    weight = torch.zeros(1024)
    with PeakMemory([weight]) as memory:
        one = weight + 1
        two = one * 2
        del one
        three = two.view(32, 32) + 1  # a view is no memory of its own
        del two
        four = three.exp()
    assert memory.peak == 8192 and memory.live == 8192 and four.shape == (32, 32)
    del three
    assert memory.live == 4096


@pytest.mark.parametrize("name", PIPELINES)
def test_a_fake_step_takes_what_a_real_one_takes(folder, name):
    """From configs alone; the real step runs on real weights under the same counter."""
    side = 4 * SIDE
    planned = footprint_of(folder(name), side, AdapterConfig(atoms=16, rank=4), torch.float32)
    backend = open_diffusers(folder(name))
    discovery = discover_sites(backend.denoiser)
    adapter = SparseAdapter.create(backend.denoiser, discovery.sites, AdapterConfig(atoms=16, rank=4), discovery.component)
    adapter.trainable()
    assert planned.parameters == sum(parameter.numel() for parameter in backend.denoiser.parameters())
    assert planned.adapter == 16 * adapter.parameter_count()
    assert planned.row == pytest.approx(step_peak(backend, adapter, side), rel=0.02)
    backend.denoiser.enable_gradient_checkpointing()
    assert planned.row_recomputed == pytest.approx(step_peak(backend, adapter, side), rel=0.02)
    backend.denoiser.disable_gradient_checkpointing()
    three = step_peak(backend, adapter, side, rows=3)
    assert three == pytest.approx(3 * planned.row, rel=0.15)


@pytest.mark.parametrize("name", PIPELINES)
def test_blank_conditioning_is_shaped_as_encoded_captions_are(folder, name):
    backend = open_diffusers(folder(name))
    blank, real = backend.blank_conditioning(2), backend.encode_captions(["a", "a red zorp"])
    assert blank.keys() == real.keys()
    for key, value in real.items():
        assert (blank[key].ndim == value.ndim and blank[key].shape[-1] == value.shape[-1]) or value.ndim == 2, key
    batch = blank_batch(backend, 2, SIDE)
    assert noise_loss(TrainConfig(), backend, batch).isfinite()


@pytest.mark.parametrize("name", PIPELINES)
def test_blocks_hold_most_of_a_model_and_none_holds_another(folder, name):
    denoiser = open_diffusers(folder(name)).denoiser
    blocks = repeated_blocks(denoiser)
    inside = sum(parameter.numel() for block in blocks for parameter in block.parameters())
    assert len(blocks) >= 2 and inside > 0.4 * sum(parameter.numel() for parameter in denoiser.parameters())
    assert len({id(parameter) for block in blocks for parameter in block.parameters()}) == len([p for b in blocks for p in b.parameters()])


def test_no_weight_is_needed(tmp_path):
    folder = save_tiny("flux", tmp_path)
    for file in folder.rglob("*.safetensors"):
        file.unlink()
    planned = footprint_of(folder, SIDE)
    assert planned.family == "flux" and planned.text > 0 and planned.codec > 0


# -- the table and the policy


def test_every_published_model_is_in_the_table_and_every_pipeline_has_one():
    assert table().keys() == FULL_SIZES.keys()
    assert {size.pipeline for size in FULL_SIZES.values()} == set(BACKENDS)
    for name, (small, own) in table().items():
        assert small.side < own.side and small.row < own.row and own.row_recomputed < own.row, name
        assert own.largest_block <= own.in_blocks <= own.parameters and own.linear <= own.parameters, name


def test_the_table_is_what_the_shapes_give():
    small = table()["sd15"][0]
    again = footprint_of("sd15", small.side)
    assert (again.parameters, again.adapter, again.linear, again.in_blocks) == (small.parameters, small.adapter, small.linear, small.in_blocks)
    assert again.row == pytest.approx(small.row, rel=0.05) and again.row_recomputed == pytest.approx(small.row_recomputed, rel=0.05)


def test_what_the_table_knows_is_found_again_and_lies_between_its_sizes():
    for small, own in table().values():
        assert known(own.family, own.parameters, own.side) == own
        between = known(own.family, own.parameters, (small.side + own.side) // 2)
        assert small.row < between.row < own.row


def test_an_unknown_model_is_taken_for_the_nearest_of_its_size():
    found = known("novel", 12_000_000_000, 1024)
    assert found.parameters == 12_000_000_000 and found.row > known("sdxl", 2_567_463_684, 1024).row
    assert known("sd15", 40_000_000, 64).row < table()["sd15"][0].row


def test_the_first_way_that_fits_is_the_fastest():
    model = table()["sdxl"][1]
    order = list(ways(model, 4, "bf16"))
    assert [(way.recomputed, way.rows) for way in order] == [(False, 4), (False, 2), (False, 1), (True, 4), (True, 2), (True, 1)]
    assert choose(model, 1e15, 4) == order[0]
    assert choose(model, order[4].bytes, 4).bytes <= order[4].bytes
    assert choose(model, 1e6, 4) is None
    assert all(isinstance(way, Fit) and "at once" in str(way) for way in order)


@pytest.mark.parametrize("number", [1, 7, 16, 36, 97, 360])
def test_a_batch_is_worked_through_in_equal_parts_the_largest_first(number):
    assert policy.divisors(number) == [n for n in range(number, 0, -1) if number % n == 0]


def test_a_batch_that_nobody_means_is_looked_at_at_once():
    assert len(policy.divisors(10**12)) == 169


def test_smaller_weights_and_more_memory_never_need_more():
    for _, own in table().values():
        sizes = [weight_bytes(own, weights) for weights in ("fp32", "bf16", "int8", "nf4")]
        assert sizes == sorted(sizes, reverse=True)
        chosen = [choose(own, usable(card), 4) for card in (8, 12, 16, 24, 80)]
        order = list(ways(own, 4, "bf16"))
        places = [order.index(way) if way else len(order) for way in chosen]
        assert places == sorted(places, reverse=True)


def test_what_was_asked_for_stays():
    parameters = table()["sdxl"][1].parameters
    plain = settle({}, "sdxl", parameters, CPU, 1024, memory=1e15)
    assert plain == {"batch_size": 4, "gradient_accumulation": 1, "gradient_checkpointing": False}
    small = settle({}, "sdxl", parameters, CPU, 1024, memory=usable(8))
    assert small["gradient_checkpointing"] and small["batch_size"] == 4
    assert settle({"batch_size": 6}, "sdxl", parameters, CPU, 1024, memory=usable(8))["batch_size"] == 6
    kept = settle({"gradient_checkpointing": False, "gradient_accumulation": 2}, "sdxl", parameters, CPU, 1024, memory=usable(8))
    assert not kept["gradient_checkpointing"] and kept["gradient_accumulation"] == 2
    least = settle({}, "sdxl", parameters, CPU, 1024, memory=1)
    assert least == {"batch_size": 4, "gradient_accumulation": 4, "gradient_checkpointing": True}


def test_processes_share_a_batch_evenly():
    chosen = settle({}, "flux", table()["flux"][1].parameters, CPU, 1024, processes=2, memory=usable(24))
    assert chosen["batch_size"] % (2 * chosen["gradient_accumulation"]) == 0
    three = settle({}, "flux", table()["flux"][1].parameters, CPU, 1024, processes=3, memory=1e15)
    assert three["batch_size"] == 3


def test_what_other_processes_hold_of_a_base_needs_no_room_here(tmp_path, monkeypatch):
    for module in (fit, policy):
        monkeypatch.setattr(module, "free_memory", lambda device: 20e9)

    def parts(in_step):
        flux = SimpleNamespace(family="flux", dtype=torch.bfloat16, device=torch.device("cpu"), default_size=1024, in_step=in_step)
        return fit.fitted(TrainConfig(out=tmp_path / "a.safetensors", batch_size=16), flux, ["batch_size"], 11_901_408_320, 2).gradient_accumulation

    assert parts(True) < parts(False) == 8


def test_a_small_model_on_a_usual_machine_is_trained_as_before():
    chosen = settle({}, "sd3", 3_000_000, CPU, 64, "fp32", memory=4e9)
    assert chosen == {"batch_size": 16, "gradient_accumulation": 1, "gradient_checkpointing": False}
    assert [batch_for(n) for n in (1e7, 1e9, 1.2e10)] == [16, 8, 4]


def test_free_memory_is_what_the_machine_has():
    assert 0 < policy.free_memory(CPU) < 2**50


def test_the_table_is_plain_json():
    assert json.loads(policy.TABLE.read_text(encoding="utf-8")).keys() == FULL_SIZES.keys()


# -- one step before anything slow, and pictures in parts


def test_what_does_not_fit_says_so_before_a_picture_is_sampled(folder, tmp_path, monkeypatch):
    backend = open_diffusers(folder("sd3"))
    data = ConceptData.from_tensors([torch.rand(3, SIDE, SIDE) * 2 - 1], [["a zorp"]])

    def full(*arguments):
        raise torch.OutOfMemoryError("out of memory. Tried to allocate 2 GiB")

    sampled = []
    monkeypatch.setattr(type(backend), "sample", lambda *arguments, **named: sampled.append(1))
    monkeypatch.setattr(type(backend), "predict", full)
    config = TrainConfig(out=tmp_path / "a.safetensors", steps=3, batch_size=2, quiet_samples=2, cache=tmp_path)
    with pytest.raises(TrainingError, match=r"out of memory.*gradient_checkpointing"):
        train(config, backend, data, Callbacks())
    assert not sampled


def test_a_trial_step_leaves_no_trace(folder, tmp_path, monkeypatch):
    backend = open_diffusers(folder("sd3"))
    data = ConceptData.from_tensors([torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(2)) * 2 - 1], [["a zorp"]])

    def trained(name):
        config = TrainConfig(out=tmp_path / f"{name}.safetensors", steps=2, batch_size=2, atoms=8, rank=2, quiet_samples=0)
        return train(config, backend, data, Callbacks()).adapter.state_dict()

    with_trial = trained("with")
    monkeypatch.setattr("sparsedict.trainer.training_sets.try_step", lambda *arguments: None)
    assert all(torch.equal(value, with_trial[name]) for name, value in trained("without").items())


def test_pictures_are_sampled_in_parts_that_fit():
    own = table()["sdxl"][1]
    rows = [sampling_rows("sdxl", own.parameters, CPU, 1024, memory=usable(card)) for card in (6, 8, 12, 24, 1000)]
    assert rows[0] == 1 and rows == sorted(rows) and rows[-1] == policy.MOST_AT_ONCE


def test_parts_are_the_same_pictures(folder, monkeypatch):
    from sparsedict.cli import sampling

    backend = open_diffusers(folder("sd3"))
    noise = sampling.seeded_noise(backend, range(5), (SIDE, SIDE))
    whole = sampling.sample(backend, "a zorp", noise, 2, 3.0)
    seen = []
    decode = type(backend).decode
    monkeypatch.setattr(type(backend), "decode", lambda self, latents: seen.append(len(latents)) or decode(self, latents))
    monkeypatch.setattr(policy, "sampling_rows", lambda *arguments: 2)
    parts = sampling.sample(backend, "a zorp", noise, 2, 3.0)
    assert seen == [2, 2, 1] and len(parts) == len(whole) == 5
    for one, other in zip(whole, parts, strict=True):
        assert max(abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True)) <= 1


def test_every_family_of_the_host_has_a_usual_size_and_guidance():
    from sparsedict.comfyui_host.families import HOST_FAMILIES
    from sparsedict.trainer.backends.comfyui_facts import USUAL

    configs = ({}, {"context_dim": 1024}, {"num_classes": "sequential"}, {"pad_tokens_multiple": 32})
    names = {family.name(kind, frozenset(), config) for family in HOST_FAMILIES for kind in family.classes for config in configs}
    assert names <= USUAL.keys() and "z_image" in names and USUAL["z_image"] == (1024, 1.0)


def test_the_page_has_the_table_as_it_is():
    from sparsedict.tools.make_memory_page import PAGE, with_table

    page = PAGE.read_text(encoding="utf-8")
    assert with_table(page) == page, "make it anew: python -m sparsedict.tools.make_memory_page"
    assert all(f"\n{name} " in page for name in FULL_SIZES)
