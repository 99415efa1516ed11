"""What a file gives back: the adapter bit for bit, its texts as they were, small, and what older versions wrote."""

from __future__ import annotations

import json
import os

import pytest
import torch
from core.adapter_files import KEY, assert_same, rewrite
from core.tiny_adapters import make_adapter
from safetensors import safe_open

from sparsedict.sparsedict_core import file_format
from sparsedict.sparsedict_core.compose import compose
from sparsedict.sparsedict_core.encoders import encoder_names
from sparsedict.sparsedict_core.file_format import load, read_metadata, save
from sparsedict.sparsedict_core.prune import prune
from sparsedict.sparsedict_core.selection import Selection, select


@pytest.mark.parametrize("encoder", encoder_names())
@pytest.mark.parametrize("rank", [6, None])
def test_fp32_is_bit_exact(tmp_path, model, encoder, rank):
    adapter = make_adapter(model, encoder=encoder, rank=rank)
    save(adapter, tmp_path / "a.safetensors", torch.float32)
    assert_same(load(tmp_path / "a.safetensors"), adapter)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_bit_exact_from_the_second_time_on(tmp_path, adapter, dtype):
    save(adapter, tmp_path / "a.safetensors", dtype)
    once = load(tmp_path / "a.safetensors")
    assert once.sites[KEY].encoder_weight.dtype == dtype
    assert torch.equal(once.sites[KEY].importance, adapter.sites[KEY].importance)
    assert torch.equal(once.sites[KEY].encoder_weight, adapter.sites[KEY].encoder_weight.to(dtype))
    save(once, tmp_path / "b.safetensors", dtype)
    assert_same(load(tmp_path / "b.safetensors"), once)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert load(tmp_path / "a.safetensors", torch.float32).sites[KEY].encoder_weight.dtype == torch.float32


def test_same_numbers_in_the_model(tmp_path, model, x, adapter):
    save(adapter, tmp_path / "a.safetensors", torch.float32)
    with adapter.attach(model):
        wanted = model(x)
    loaded = load(tmp_path / "a.safetensors")
    with loaded.attach(model):
        assert torch.allclose(model(x), wanted, atol=1e-6)
    assert not any(p.requires_grad for p in loaded.parameters())
    assert all(p.requires_grad and p.dtype == torch.float32 for p in loaded.trainable().parameters())


def test_keys_and_metadata(tmp_path, adapter):
    adapter.metadata.update(
        base_family="sd3", base_fingerprint="abc", trigger_words=["sks"], training={"steps": 3, "densities": [0.1]}, title="Cat"
    )
    report = save(adapter, tmp_path / "a.safetensors")
    names = {"encoder.weight", "encoder.basis", "encoder.bias", "encoder.mean", "encoder.scale", "encoder.threshold",
             "dictionary.weight", "dictionary.basis", "importance", "atom_ids", "firing", "moments"}  # fmt: skip
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert set(file.keys()) == {f"{key}.{name}" for key in adapter.sites for name in names}
        raw = file.metadata()
    assert raw["format"] == "sparse_dict" and raw["format_version"] == "2" and raw["encoder"] == "quantile"
    assert json.loads(raw["encoder_settings"]) == {"momentum": 0.9}
    assert raw["modelspec.title"] == "Cat" and raw["modelspec.architecture"] == "sd3/sparse_dict"
    assert report.bytes == os.path.getsize(tmp_path / "a.safetensors") and report.moments_bytes == 3 * 24 * 24 * 4
    assert report.forms == dict.fromkeys(adapter.sites, "factored") and "72 atoms" in report.text
    loaded = load(tmp_path / "a.safetensors")
    assert loaded.metadata["training"] == {"steps": 3, "densities": [0.1]} and loaded.metadata["trigger_words"] == ["sks"]
    assert loaded.config == adapter.config and loaded.component == "transformer"
    meta = read_metadata(tmp_path / "a.safetensors")
    assert meta["sites"][1] == {"path": "transformer.blocks.1.to_out.0", "layer": 1, "stream": None, "d_in": 20, "d_out": 16}
    assert meta["base_fingerprint"] == "abc"
    without = save(adapter, tmp_path / "b.safetensors", moments=False)
    assert without.moments_bytes == 0 and without.bytes < report.bytes
    assert load(tmp_path / "b.safetensors").sites[KEY].moments is None


def test_older_files_know_no_firing_rates(tmp_path, adapter):
    save(adapter, tmp_path / "a.safetensors")
    assert torch.equal(load(tmp_path / "a.safetensors").sites[KEY].firing, adapter.sites[KEY].firing)
    rewrite(tmp_path / "a.safetensors", lambda t: t.pop(f"{KEY}.firing"))
    older = load(tmp_path / "a.safetensors")
    assert older.sites[KEY].firing is None
    small = prune(older, select(older, Selection(top=5)))
    joined = compose([("older", small, 1.0), ("newer", adapter, 1.0)])
    save(joined, tmp_path / "b.safetensors")
    sites = load(tmp_path / "b.safetensors").sites
    assert sites[f"older:{KEY}"].firing is None and torch.equal(sites[f"newer:{KEY}"].firing, adapter.sites[KEY].firing)


@pytest.mark.parametrize(("old", "now", "threshold"), [("soft_quantile", "soft", 0.4), ("relu_l1", "quantile", 0.0)])
def test_a_file_of_an_encoder_that_is_gone_draws_as_before_where_another_does_the_same(tmp_path, adapter, model, x, old, now, threshold):
    path = tmp_path / "a.safetensors"
    for site in adapter.sites.values():
        site.threshold.fill_(threshold)
    save(compose([("one", adapter, 1.0)]), path)

    def as_written_then(meta):
        config = {**json.loads(meta["config"]), "encoder": old, "encoder_settings": {}}
        members = [{**member, "config": config} for member in json.loads(meta["members"])]
        meta.update(encoder=old, config=json.dumps(config), members=json.dumps(members))

    rewrite(path, None, as_written_then)
    loaded = load(path)
    assert {site.encoder.name for site in loaded.sites.values()} == {now}
    u = torch.randn(50, 24)
    wanted = u.sign() * torch.relu(u.abs() - threshold) if now == "soft" else torch.relu(u)
    assert all(torch.allclose(site.encoder.coefficients(u, site.threshold), wanted, atol=1e-6) for site in loaded.sites.values())
    save(loaded, tmp_path / "b.safetensors")
    assert load(tmp_path / "b.safetensors").config.encoder == now


def test_pruned_file_is_smaller_keeps_ids_and_empty_sites(tmp_path, model, x, adapter):
    whole = save(adapter, tmp_path / "a.safetensors", moments=False)
    result = select(adapter, Selection(atoms="L0[3,7],L2[20]"))
    pruned = prune(adapter, result)
    report = save(pruned, tmp_path / "b.safetensors", torch.float32, moments=False)
    small = save(pruned, tmp_path / "c.safetensors", moments=False)
    assert small.bytes < 0.7 * whole.bytes and set(report.forms.values()) == {"dense"}
    loaded = load(tmp_path / "b.safetensors")
    assert loaded.sites[KEY].atom_ids.tolist() == [3, 7]
    assert loaded.sites["transformer.blocks.1.to_out.0"].atoms == 0
    assert [s.d_in for s in loaded.sites.values()] == [20, 20, 20]
    with adapter.attach(model) as attachment:
        attachment.set_gains(result.gains())
        masked = model(x)
    with loaded.attach(model):
        assert torch.allclose(model(x), masked, atol=1e-5)
    assert_same(loaded, load(tmp_path / "b.safetensors"))


def test_a_compacted_adapter_is_stored_as_it_is(tmp_path, adapter):
    pruned = prune(adapter, select(adapter, Selection(keep=0.1))).compact()
    save(pruned, tmp_path / "a.safetensors", torch.float32)
    assert_same(load(tmp_path / "a.safetensors"), pruned)


def test_composed_file(tmp_path, model, adapter):
    other = make_adapter(model, 7, encoder="soft", rank=None)
    composed = compose([("cat", adapter, 0.8), ("style", other, 0.5)])
    save(composed, tmp_path / "a.safetensors", torch.float32)
    loaded = load(tmp_path / "a.safetensors")
    assert_same(loaded, composed)
    assert loaded.members == composed.members
    assert loaded.sites[f"style:{KEY}"].encoder.name == "soft"


def test_what_an_adapter_may_be_called_is_text(tmp_path, adapter):
    adapter.metadata.update(title="[1]", base_family="[2]", base_fingerprint="{}", trigger_words=["ü\U0001f600"])
    save(adapter, tmp_path / "a.safetensors")
    assert load(tmp_path / "a.safetensors").metadata.items() >= adapter.metadata.items()


def test_text_that_no_file_takes_is_replaced(tmp_path, adapter):
    adapter.metadata.update(title="a\udcff", training={"caption": "b\udcff"})
    save(adapter, tmp_path / "a.safetensors")
    metadata = load(tmp_path / "a.safetensors").metadata
    assert metadata["title"] == "a?" and metadata["training"] == {"caption": "b?"}


FOREIGN = {"deep": "[" * 100_000, "deep and closed": "[" * 101 + "]" * 101, "surrogate": r'["\ud800"]', "no json": "[cat] a"}


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_text_that_cannot_be_decoded_stays_text(tmp_path, adapter, case):
    save(adapter, tmp_path / "a.safetensors")
    rewrite(tmp_path / "a.safetensors", None, lambda m: m.update(note=FOREIGN[case]))
    loaded = load(tmp_path / "a.safetensors").clone()
    assert loaded.metadata["note"] == FOREIGN[case]
    save(loaded, tmp_path / "b.safetensors")
    assert load(tmp_path / "b.safetensors").metadata == loaded.metadata


def test_a_header_length_that_looks_like_a_pickle(tmp_path, adapter):
    """The first bytes are a length; 0x0280 = 640 starts as a pickle does."""
    path = tmp_path / "a.safetensors"
    save(adapter, path)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    padded = 0x010280
    path.write_bytes(padded.to_bytes(8, "little") + data[8 : 8 + length].ljust(padded) + data[8 + length :])
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert_same(load(path), load_again(path, data))


def load_again(path, data):
    other = path.with_name("b.safetensors")
    other.write_bytes(data)
    return load(other)


def test_file_format_module_uses_no_pickle():
    assert "pickle" not in vars(file_format) and not hasattr(file_format, "torch_load")
