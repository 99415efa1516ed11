"""What is wrong with a file is one sentence that names the file and the part."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from core.adapter_files import KEY, in_config, read_raw, rewrite
from core.tiny_adapters import make_adapter

from sparsedict.sparsedict_core.compose import compose
from sparsedict.sparsedict_core.errors import FileFormatError
from sparsedict.sparsedict_core.file_format import load, read_metadata, save

DEEP = "[" * 100_000

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


def test_a_shape_without_numbers_takes_no_memory(tmp_path, model):
    path = tmp_path / "a.safetensors"
    save(make_adapter(model), path)
    rewrite(path, lambda t: t.update({f"{KEY}.encoder.weight": torch.zeros(10**13, 0), f"{KEY}.encoder.basis": torch.zeros(0, 20)}))
    with pytest.raises(FileFormatError, match="has shape"):
        load(path)


def test_a_file_of_an_encoder_that_is_gone_says_what_to_do(tmp_path, adapter):
    path = tmp_path / "a.safetensors"
    save(adapter, path)
    rewrite(path, None, lambda m: (m.update(encoder="topk"), in_config(encoder="topk", encoder_settings={"share": 0.1})(m)))
    with pytest.raises(FileFormatError, match=r"'topk' was an experiment .* use version 0\.1\.0 .* or train again") as error:
        load(path)
    assert str(path) in str(error.value) and str(error.value).count("\n") == 0


def in_site(**changes):
    """The first row of the site table, changed."""

    def change(meta):
        first, *others = json.loads(meta["sites"])
        meta["sites"] = json.dumps([{**first, **changes}, *others])

    return change


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
