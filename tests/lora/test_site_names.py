"""Names of any module: short, one for each, with the layers that the attention outputs have."""

import pytest
from core.tiny_denoisers import DENOISERS

from sparsedict.lora.base import Base
from sparsedict.sparsedict_core.addresses import STREAM_NAME


@pytest.mark.parametrize("family", DENOISERS)
def test_no_two_are_alike(family):
    base = Base.of(DENOISERS[family][0]()[0])
    places = base.places()
    names = places.name_of(list(places.widths))
    assert len({(name.layer, name.stream) for name in names.values()}) == len(names)
    assert all(name.stream is None or STREAM_NAME.fullmatch(name.stream) for name in names.values())
    assert all(name.path == f"{base.component}.{path}" for path, name in names.items())


def test_short_ones():
    base = Base.of(DENOISERS["sd3"][0]()[0])
    names = base.places().name_of(["transformer_blocks.1.attn.to_q", "transformer_blocks.1.attn.add_k_proj", "transformer_blocks.1.ff.net.0.proj", "transformer_blocks.1.attn.to_out.0"])
    assert [(name.layer, name.stream) for name in names.values()] == [(1, "image.q"), (1, "text.k"), (1, "ff.up"), (1, "image")]
    base = Base.of(DENOISERS["sdxl"][0]()[0])
    names = base.places().name_of(["down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k", "down_blocks.1.resnets.0.conv1"])
    assert [(name.layer, name.stream) for name in names.values()] == [(1, "cross.k"), (1, "resnets_0.conv1")]
