"""Files of every format version that there ever was give what they gave when they were written, to the bit."""

from __future__ import annotations

import json

import pytest
import torch
from data.make_golden import FOLDER, OUTPUT, STRENGTH, GoldenModel
from safetensors.torch import load_file

from sparsedict.sparsedict_core.file_format import load, read_metadata, save
from sparsedict.sparsedict_core.file_metadata import FORMAT_VERSION


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION + 1))
@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_a_file_gives_what_it_gave(version, dtype):
    golden = load_file(OUTPUT)
    adapter = load(FOLDER / f"version-{version}.safetensors", dtype)
    model = GoldenModel(golden["weights"])
    with adapter.attach(model, STRENGTH):
        assert torch.equal(model(golden["x"]), golden["output"])
    assert torch.equal(model(golden["x"]), golden["base"]) and not torch.equal(golden["base"], golden["output"])


def parts(path):
    """A file's text fields, and the bytes of its tensors."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length])["__metadata__"], data[8 + length :]


def test_version_1_becomes_version_2(tmp_path):
    """Loaded, it is what a file of today holds: the same sites, texts and numbers, with statistics in fp32."""
    old, new = (load(FOLDER / f"version-{version}.safetensors") for version in (1, 2))
    for key, site in old.sites.items():
        mine, other = site.state_dict(), new.sites[key].state_dict()
        assert mine.keys() == other.keys() and all(torch.equal(mine[n], other[n]) and mine[n].dtype == other[n].dtype for n in mine), key
        assert site.encoder_mean.dtype == torch.float32
    save(old, tmp_path / "a.safetensors")
    (text, tensors), (golden_text, golden_tensors) = (parts(file) for file in (tmp_path / "a.safetensors", FOLDER / "version-2.safetensors"))
    # What other programs read of a file has grown since.
    assert tensors == golden_tensors and {key: text[key] for key in golden_text} == golden_text
    assert text.keys() - golden_text.keys() <= {"modelspec.tags", "modelspec.usage_hint", "modelspec.hash_sha256"}
    one, two = (read_metadata(FOLDER / f"version-{version}.safetensors") for version in (1, 2))
    assert (one.pop("format_version"), two.pop("format_version")) == (1, 2) and one == two


def test_statistics_that_no_half_can_hold_are_kept(tmp_path, adapter, model, x):
    """Means beyond 65,504 and scales that underflow in fp16: such a run trained and could then not be saved."""
    site = adapter.sites["transformer.blocks.0.to_out.0"]
    site.set_input_statistics(torch.full((20,), 1e5), torch.full((20,), 1e-9))
    site.encoder_bias.zero_()
    save(adapter, tmp_path / "a.safetensors")
    loaded = load(tmp_path / "a.safetensors")
    again = loaded.sites[site.key]
    assert torch.equal(again.encoder_mean, site.encoder_mean) and torch.equal(again.encoder_scale, site.encoder_scale)
    assert again.encoder_weight.dtype == torch.float16
    with loaded.attach(model):
        assert bool(torch.isfinite(model(x)).all())
