"""Tags in prompts: one grammar for all hosts, and a sentence with the tag for every mistake."""

import pytest
import torch
from core.tiny_adapters import TinyModel, make_adapter

from sparsedict.sparsedict_core.errors import SparseDictError, TagError
from sparsedict.sparsedict_core.gains import resolve_gains
from sparsedict.sparsedict_core.prompt_tags import find_tags, parse_tag
from sparsedict.sparsedict_core.selection import Selection, select


def tag(text):
    return parse_tag(text.split(":"))


def test_a_prompt_gives_its_tags_in_order_and_the_rest():
    text, tags = find_tags("a <sparsedict:cat:0.8> on a mat, <lora:x:1> <sparsedict:sub/dir/fog>")
    assert text == "a  on a mat, <lora:x:1> " and [(t.name, t.strength) for t in tags] == [("cat", 0.8), ("sub/dir/fog", 1.0)]


def test_all_options_are_read():
    found = tag("cat:0.5:keep=25%:layers=L4-L9+L11.text:gain=L5[2]+L6*1.5+L7[0-3]*0:start=0.2:end=0.9")
    assert (found.keep, found.layers, found.gain) == (0.25, "L4-L9,L11.text", "L5[2],L6=1.5, L7[0-3]=0.0")
    assert (found.start, found.end) == (0.2, 0.9)
    assert tag("cat:atoms=L17[137]+L3[0-15]").atoms == "L17[137],L3[0-15]" and tag("cat:top=64").top == 64


def test_a_members_address_survives_the_hosts_colons():
    assert tag("both:atoms=cat:L1[3]+fog:L2").atoms == "cat:L1[3],fog:L2"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no adapter is named"),
        (":0.8", "no adapter is named"),
        ("cat:strong", "the strength is 'strong'"),
        ("cat:nan", "the strength is 'nan'"), ("cat:0_8", "the strength is '0_8'"), ("cat:0x10", "the strength is '0x10'"), ("cat:١", "the strength is"),
        ("cat:inf", "the strength is 'inf'"),
        ("cat:1:2", "'2' is neither"),
        ("cat:kep=0.2", "no option 'kep'"),
        ("cat:keep=", "keep is empty"),
        ("cat:keep=25", "keep is 25"),
        ("cat:keep=0.2:keep=0.3", "given twice"),
        ("cat:keep=0.2:top=3", "exclude each other"),
        ("cat:top=-1", "top is '-1'"),
        ("cat:atoms=L3[", "expected"),
        ("cat:gain=L3", "sets no gain"),
        ("cat:gain=L3*inf", "the gain is 'inf'"),
        ("cat:start=0.5:end=0.5", "never"),
    ],
)
def test_a_mistake_is_said_with_the_tag(text, named):
    with pytest.raises(TagError) as caught:
        tag(text)
    assert f"<sparsedict:{text}>" in str(caught.value) and named in str(caught.value)


def test_gains_are_the_selections_and_the_dials():
    adapter = make_adapter(TinyModel())
    for number, site in enumerate(adapter.sites.values()):
        site.importance = torch.rand(site.atoms, generator=torch.Generator().manual_seed(number))
    label = f"L{next(iter(adapter.sites.values())).name.layer}"
    assert tag("cat").gains(adapter) is None
    kept = select(adapter, Selection(keep=0.25)).gains()
    dial = resolve_gains(adapter, f"{label}=2")
    both = tag(f"cat:keep=0.25:gain={label}*2").gains(adapter)
    for key in adapter.sites:
        assert torch.equal(tag("cat:keep=0.25").gains(adapter)[key], kept[key])
        assert torch.equal(both[key], kept[key] * dial[key])
    assert all(not values.any() for values in tag("cat:keep=0").gains(adapter).values())
    layer = tag(f"cat:layers={label}").gains(adapter)
    assert sum(int(v.sum()) for v in layer.values()) == sum(s.atoms for s in adapter.sites.values() if f"L{s.name.layer}" == label)
    with pytest.raises(SparseDictError, match="L99"):
        tag("cat:atoms=L99[0]").gains(adapter)


def test_ranges_of_the_sampling_meet_without_overlap():
    first, second = tag("cat:end=0.5"), tag("cat:start=0.5")
    for progress in (0.0, 0.25, 0.5, 0.75, 1.0):
        assert first.acts_at(progress) != second.acts_at(progress)
