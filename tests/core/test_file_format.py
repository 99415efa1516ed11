"""The file: bit-exact both ways, small, whole or not at all, and clear about what is wrong with it."""

from __future__ import annotations

import errno
import json
import os
import pickle

import pytest
import torch
from core.tiny_adapters import make_adapter
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sparsedict.sparsedict_core import file_format
from sparsedict.sparsedict_core.compose import compose
from sparsedict.sparsedict_core.encoders import encoder_names
from sparsedict.sparsedict_core.errors import CompositionError, FileFormatError
from sparsedict.sparsedict_core.file_format import load, read_metadata, save
from sparsedict.sparsedict_core.prune import prune
from sparsedict.sparsedict_core.selection import Selection, select
from sparsedict.sparsedict_core.tensor_table import site_tensors

KEY = "transformer.blocks.0.to_out.0"


def tensors_of(adapter):
    return {f"{key}.{row.name}": tensor for key, site in adapter.sites.items() for row, tensor in site_tensors(site)}


def assert_same(one, two):
    a, b = tensors_of(one), tensors_of(two)
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]), name


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


BAD_MEMBERS = {
    "nan": ({"strength": float("nan")}, "strength of style is nan"),
    "text": ({"strength": "1"}, "strength of style is '1'"),
    "too large": ({"strength": 10**400}, "must be a number from -250 to 250"),
    "same name": ({"name": "cat"}, "'cat' is there twice"),
    "no name": ({"name": "a b"}, "'a b' is there twice, or no name"),
    "config": ({"config": {"encoder": "quantile", "encoder_settings": {"momentum": -1}}}, "field members: .*momentum = -1: give a number from 0"),
}


@pytest.mark.parametrize("case", BAD_MEMBERS)
def test_bad_members_are_named(tmp_path, adapter, case):
    path = tmp_path / "a.safetensors"
    save(compose([("cat", adapter, 0.8), ("style", adapter, 0.5)]), path)
    changes, match = BAD_MEMBERS[case]
    cat, style = json.loads(read_raw(path)["members"])
    rewrite(path, None, lambda m: m.update(members=json.dumps([cat, {**style, **changes}])))
    with pytest.raises(FileFormatError, match=match) as error:
        load(path)
    assert str(path) in str(error.value)


def read_raw(path):
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def rewrite(path, change_tensors=None, change_meta=None):
    meta = read_raw(path)
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    if change_tensors:
        change_tensors(tensors)
    if change_meta:
        change_meta(meta)
    save_file(tensors, path, metadata=meta)


BAD_TENSORS = {
    "missing": (lambda t: t.pop(f"{KEY}.encoder.bias"), rf"{KEY}\.encoder\.bias is missing"),
    "extra": (lambda t: t.update({"other.weight": torch.zeros(2)}), r"other\.weight belongs to no site"),
    "shape": (lambda t: t.update({f"{KEY}.encoder.bias": torch.zeros(3)}), r"encoder\.bias has shape \(3,\), expected \(24,\)"),
    "scalar": (lambda t: t.update({f"{KEY}.encoder.weight": torch.zeros(())}), r"encoder\.weight has shape"),
    "nan": (lambda t: t[f"{KEY}.dictionary.weight"].fill_(float("nan")), r"dictionary\.weight has values that are not finite"),
    "integers": (lambda t: t.update({f"{KEY}.importance": torch.zeros(24, dtype=torch.int64)}), "I64; it must be fp32"),
    "half statistics": (lambda t: t.update({f"{KEY}.encoder.mean": torch.zeros(20).half()}), "F16; it must be fp32"),
    "doubles": (lambda t: t.update({f"{KEY}.encoder.bias": torch.zeros(24).double()}), "F64; it must be fp16, bf16 or fp32"),
    "eight bits": (lambda t: t.update({f"{KEY}.encoder.scale": torch.ones(20).to(torch.float8_e4m3fn)}), "F8_E4M3; it must be fp32"),
    "ids": (lambda t: t[f"{KEY}.atom_ids"].fill_(1), "atom_ids has an id twice"),
    "huge id": (lambda t: t[f"{KEY}.atom_ids"][:1].fill_(2**31 - 1), "atom_ids has ids outside of 0 to 1,048,575"),
    "longer ids": (lambda t: t.update({f"{KEY}.atom_ids": torch.arange(24)}), "atom_ids is stored as I64; it must be int32"),
    "importance": (lambda t: t[f"{KEY}.importance"].fill_(-1), "importance has values below 0"),
    "moments": (lambda t: t[f"{KEY}.moments"].neg_(), "moments are no mean products"),
    "moments that are too large beside the diagonal": (lambda t: t[f"{KEY}.moments"][0, 1:].fill_(1e6), "moments are no mean products"),
    "moments that are not symmetric": (lambda t: t[f"{KEY}.moments"].triu_(), "moments are no mean products"),
    "no rank": (lambda t: t.update({f"{KEY}.encoder.weight": torch.zeros(24, 0), f"{KEY}.encoder.basis": torch.zeros(0, 20)}), r"weight has shape \(24, 0\)"),
    "scale": (lambda t: t[f"{KEY}.encoder.scale"].fill_(0), "scale has values of 0"),
    "half": (lambda t: t.pop(f"{KEY}.encoder.mean"), "mean and scale"),
    "firing": (lambda t: t[f"{KEY}.firing"].fill_(1.5), r"firing has values that are no shares"),
    "firing's shape": (lambda t: t.update({f"{KEY}.firing": torch.zeros(23)}), r"firing has shape \(23,\), expected \(24,\)"),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_bad_tensors_are_named(tmp_path, adapter, case):
    path = tmp_path / "a.safetensors"
    save(adapter, path)
    change, match = BAD_TENSORS[case]
    rewrite(path, change)
    with pytest.raises(FileFormatError, match=match) as error:
        load(path)
    assert str(path) in str(error.value)


def test_a_file_of_an_encoder_that_is_gone_says_what_to_do(tmp_path, adapter):
    path = tmp_path / "a.safetensors"
    save(adapter, path)
    rewrite(path, None, lambda m: (m.update(encoder="topk"), in_config(encoder="topk", encoder_settings={"share": 0.1})(m)))
    with pytest.raises(FileFormatError, match=r"'topk' was an experiment .* use version 0\.1\.0 .* or train again") as error:
        load(path)
    assert str(path) in str(error.value) and str(error.value).count("\n") == 0


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


def test_a_shape_without_numbers_takes_no_memory(tmp_path, model):
    path = tmp_path / "a.safetensors"
    save(make_adapter(model), path)
    rewrite(path, lambda t: t.update({f"{KEY}.encoder.weight": torch.zeros(10**13, 0), f"{KEY}.encoder.basis": torch.zeros(0, 20)}))
    with pytest.raises(FileFormatError, match="has shape"):
        load(path)


def test_what_an_adapter_may_be_called_is_text(tmp_path, adapter):
    adapter.metadata.update(title="[1]", base_family="[2]", base_fingerprint="{}", trigger_words=["ü\U0001f600"])
    save(adapter, tmp_path / "a.safetensors")
    assert load(tmp_path / "a.safetensors").metadata.items() >= adapter.metadata.items()


def test_text_that_no_file_takes_is_replaced(tmp_path, adapter):
    adapter.metadata.update(title="a\udcff", training={"caption": "b\udcff"})
    save(adapter, tmp_path / "a.safetensors")
    metadata = load(tmp_path / "a.safetensors").metadata
    assert metadata["title"] == "a?" and metadata["training"] == {"caption": "b?"}


DEEP = "[" * 100_000
FOREIGN = {"deep": DEEP, "deep and closed": "[" * 101 + "]" * 101, "surrogate": r'["\ud800"]', "no json": "[cat] a"}


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_text_that_cannot_be_decoded_stays_text(tmp_path, adapter, case):
    save(adapter, tmp_path / "a.safetensors")
    rewrite(tmp_path / "a.safetensors", None, lambda m: m.update(note=FOREIGN[case]))
    loaded = load(tmp_path / "a.safetensors").clone()
    assert loaded.metadata["note"] == FOREIGN[case]
    save(loaded, tmp_path / "b.safetensors")
    assert load(tmp_path / "b.safetensors").metadata == loaded.metadata


def in_site(**changes):
    """The first row of the site table, changed."""

    def change(meta):
        first, *others = json.loads(meta["sites"])
        meta["sites"] = json.dumps([{**first, **changes}, *others])

    return change


def in_config(**changes):
    return lambda meta: meta.update(config=json.dumps({**json.loads(meta["config"]), **changes}))


BAD_META = {
    "other format": (lambda m: m.pop("format"), "no sparse dictionary"),
    "version": (lambda m: m.update(format_version="99"), "format_version '99'"),
    "encoder": (lambda m: m.update(encoder="magic", config=m["config"].replace("quantile", "magic")), "unknown encoder 'magic'"),
    "config": (lambda m: m.pop("config"), "field config is missing"),
    "config text": (lambda m: m.update(config="{"), "config is not JSON"),
    "config type": (lambda m: m.update(config="[1]"), "options are a list"),
    "sites": (lambda m: m.update(sites='[{"path": 3}]'), "field sites is damaged"),
    "sites type": (lambda m: m.update(sites="3"), "field sites is damaged"),
    "disagreement": (lambda m: m.update(encoder="linear"), "field encoder says"),
    "members": (lambda m: m.update(members='[{"name": "x"}]'), "damaged"),
    "deep config": (lambda m: m.update(config=DEEP), "field config is not JSON .*too deeply"),
    "deep members": (lambda m: m.update(members=DEEP), "field members is not JSON .*too deeply"),
    "deep sites": (lambda m: m.update(sites="[" * 101 + "]" * 101), "field sites is not JSON .*too deeply"),
    "surrogate": (in_site(path="\ud800"), "field sites is not JSON"),
    "no sites": (lambda m: m.update(sites="[]"), "it names no site"),
    "infinite layer": (in_site(layer=float("inf")), "layer inf of"),
    "long layer": (in_site(layer=10**9), "layer 1000000000 of"),
    "half layer": (in_site(layer=0.5), r"layer 0\.5 of"),
    "infinite width": (in_site(d_in=float("inf")), r"widths of .* are \(inf, 16\)"),
    "no width": (in_site(d_out=0), r"widths of .* are \(20, 0\)"),
    "path": (in_site(path=3), "path 3 is no text"),
    "stream": (in_site(stream="a]"), "stream 'a]' of"),
    "atoms": (in_config(atoms=10**30), r"field config: atoms is 10+: give a whole number"),
    "density text": (in_config(density="x"), "field config: density is 'x'"),
    "settings": (in_config(encoder_settings={"momentum": "x"}), "setting momentum = 'x': give a number from 0 to 1"),
    "settings type": (in_config(encoder_settings=[1]), r"settings \[1\]"),
    "settings name": (in_config(encoder_settings={"self": 1, "name": 1}), "no setting 'name'"),
}


@pytest.mark.parametrize("case", BAD_META)
def test_bad_metadata_is_named(tmp_path, adapter, case):
    path = tmp_path / "a.safetensors"
    save(adapter, path)
    change, match = BAD_META[case]
    rewrite(path, None, change)
    for read in (load, read_metadata):
        with pytest.raises(FileFormatError, match=match) as error:
            read(path)
        assert str(path) in str(error.value)


def test_files_that_are_something_else(tmp_path, adapter):
    path = tmp_path / "a.safetensors"
    for read in (load, read_metadata):
        with pytest.raises(FileFormatError, match="does not exist"):
            read(path)
        with pytest.raises(FileFormatError, match="folder"):
            read(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(FileFormatError, match="empty"):
        load(path)
    for protocol in (2, 3, 4, 5):
        path.write_bytes(pickle.dumps({"a": 1}, protocol=protocol))
        with pytest.raises(FileFormatError, match="pickle"):
            load(path)
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(FileFormatError, match="pickle"):
        load(path)
    path.write_bytes(b"\x89PNG and so on, which is no tensor file at all")
    with pytest.raises(FileFormatError, match="not a safetensors file"):
        load(path)
    path.unlink()
    save(adapter, path)
    data = path.read_bytes()
    for size in (len(data) - 1, len(data) // 2, 100, 12):
        path.write_bytes(data[:size])
        with pytest.raises(FileFormatError, match="truncated"):
            load(path)


def test_existing_file_is_kept_unless_allowed(tmp_path, adapter):
    path = tmp_path / "a.safetensors"
    save(adapter, path)
    before = path.read_bytes()
    with pytest.raises(FileFormatError, match="exists already"):
        save(adapter, path, torch.float32)
    assert path.read_bytes() == before
    save(adapter, path, torch.float32, overwrite=True)
    assert path.read_bytes() != before


def test_values_that_do_not_fit(tmp_path, adapter):
    with torch.no_grad():
        adapter.sites[KEY].encoder_bias[0] = 1e6
    with pytest.raises(FileFormatError, match=r"encoder\.bias has values too large"):
        save(adapter, tmp_path / "a.safetensors")
    save(adapter, tmp_path / "a.safetensors", torch.bfloat16)
    with torch.no_grad():
        adapter.sites[KEY].encoder_bias[0] = float("inf")
    with pytest.raises(FileFormatError, match="not finite"):
        save(adapter, tmp_path / "b.safetensors", torch.float32)
    assert os.listdir(tmp_path) == ["a.safetensors"]
    with torch.no_grad():
        adapter.sites[KEY].encoder_bias[0] = 0
        adapter.sites[KEY].encoder_scale[0] = 0
    with pytest.raises(FileFormatError, match=r"encoder\.scale has values of 0 or less"):
        save(adapter, tmp_path / "b.safetensors")
    with pytest.raises(FileFormatError, match="int32"):
        save(adapter, tmp_path / "c.safetensors", torch.int32)
    with pytest.raises(FileFormatError, match=r"\.safetensors"):
        save(adapter, tmp_path / "c.pt")


@pytest.mark.parametrize("number, match", [(errno.ENOSPC, "disk is full"), (errno.EACCES, "not writable"), (errno.EIO, "another place")])
def test_a_failing_disk_leaves_the_old_file_and_no_other(tmp_path, adapter, monkeypatch, number, match):
    path = tmp_path / "a.safetensors"
    save(adapter, path)
    before = path.read_bytes()

    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(FileFormatError, match=match):
        save(adapter, path, torch.float32, overwrite=True)
    assert os.listdir(tmp_path) == ["a.safetensors"] and path.read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="Windows knows no umask")
def test_a_file_gets_the_rights_of_any_new_file(tmp_path, adapter, monkeypatch):
    before = os.umask(0o027)
    try:
        monkeypatch.setattr("os.umask", lambda mask: pytest.fail("the mask belongs to the whole process"))
        save(adapter, tmp_path / "a.safetensors")
        save(adapter, tmp_path / "a.safetensors", overwrite=True)
    finally:
        monkeypatch.undo()
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o640


def test_a_folder_that_is_a_file(tmp_path, adapter):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileFormatError, match="not saved"):
        save(adapter, tmp_path / "file" / "a.safetensors")


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


def test_importance_is_bounded(tmp_path, adapter):
    """Sums over many atoms must be numbers that JSON has."""
    path = tmp_path / "a.safetensors"
    next(iter(adapter.sites.values())).importance.fill_(3e38)
    with pytest.raises(FileFormatError, match=r"values below 0 or above 1e\+30"):
        save(adapter, path)


def test_a_member_s_name_has_a_length(adapter):
    with pytest.raises(CompositionError, match="is too long a name for a member"):
        compose([("a" * 5000, adapter, 1.0), ("b", adapter, 1.0)])
