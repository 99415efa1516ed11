"""The cards' page: what the host is told of each file, and when it looks again."""

import json

import pytest
import torch
from webui.models import adapter, write

from sparsedict.sparsedict_core.file_format import save
from sparsedict.webui_host import cards


@pytest.fixture
def page(host):
    return cards.make_page()


def items(page):
    return {item["name"]: item for item in page.list_items()}


def test_each_file_has_a_card_with_its_folder_its_words_and_a_picture(page, tmp_path):
    found = items(page)
    assert list(found) == ["animals/cat", "zorp"]
    cat = found["animals/cat"]
    assert cat["filename"] == str(tmp_path / "animals/cat.safetensors") and cat["local_preview"] == str(tmp_path / "animals/cat.png")
    assert cat["preview"] == "./sparsedict/v1/thumbnail?name=animals/cat" and len(cat["shorthash"]) == 12
    assert cat["prompt"] == '"<sparsedict:animals/cat:" + opts.extra_networks_default_multiplier + ">" + " zorp"'
    assert page.allowed_directories_for_previews() == [str(tmp_path)] and not page.allow_negative_prompt
    json.dumps(cat)  # the host writes it into its page


def test_a_search_finds_the_path_the_title_and_the_words(page, tmp_path):
    made = adapter(["unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"])
    made.metadata.update(title="A purple beast", trigger_words=["fendo", "beast"])
    save(made, tmp_path / "b.safetensors", dtype=torch.float32)
    card = items(page)["b"]
    assert card["search_terms"][1:] == ["A purple beast", "fendo", "beast"] and card["search_terms"][0].endswith("b.safetensors")
    assert card["description"] == "A purple beast" and card["prompt"].endswith('" fendo beast"')


def test_what_a_person_has_put_beside_the_file_comes_first(page, monkeypatch):
    monkeypatch.setattr(page, "find_preview", lambda path: f"{path}.png")
    monkeypatch.setattr(page, "find_description", lambda path: "mine")
    card = items(page)["zorp"]
    assert card["preview"].endswith("/zorp.png") and card["description"] == "mine"


def test_files_come_and_go_without_a_restart(page, tmp_path):
    assert page.create_item("new") is None
    write(tmp_path, "sub/deep/new")
    page.refresh()
    assert "sub/deep/new" in items(page) and page.create_item("sub/deep/new", 3)["sort_keys"]["default"] == 3
    (tmp_path / "zorp.safetensors").unlink()
    assert "zorp" not in items(page)


def test_a_file_that_cannot_be_used_says_so_on_its_card(page, tmp_path):
    (tmp_path / "damaged.safetensors").write_bytes(b"no such thing")
    found = items(page)
    assert found["damaged"]["description"].startswith("cannot be used: ") and "zorp" in found
    assert found["damaged"]["prompt"].endswith('">"')  # no words


SCRIPT = "<img src=x onerror=alert(1)>"


def write_metadata(path, **metadata):
    made = adapter(["unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"])
    made.metadata.update(metadata)
    save(made, path, dtype=torch.float32)


def test_no_text_of_a_file_is_markup_where_the_host_takes_it_as_it_is(page, tmp_path):
    """Search terms go into the page unescaped, on all three hosts; descriptions only where an option says that they are HTML."""
    write_metadata(tmp_path / "b.safetensors", title=SCRIPT, trigger_words=[SCRIPT, "fendo"])
    card = items(page)["b"]
    assert not any("<" in term for term in card["search_terms"]) and card["search_terms"][2:] == ["&lt;img src=x onerror=alert(1)&gt;", "fendo"]
    assert card["description"] == SCRIPT  # which the host escapes


@pytest.mark.parametrize("words, told", [("one text", "one text"), ({"a": 1}, None), ([5, None], "5 None"), (["a\nb"], "a\\\\nb"), ([], None)])
def test_words_of_any_kind_leave_the_page_whole(page, tmp_path, words, told):
    write_metadata(tmp_path / "b.safetensors", trigger_words=[])
    path = tmp_path / "b.safetensors"
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"]["trigger_words"] = words if isinstance(words, str) else json.dumps(words)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
    found = items(page)
    assert found["b"]["prompt"].endswith(f'" {told}"' if told else '">"') and len(found) == 3


def test_names_and_words_cannot_leave_their_quotes(page, tmp_path):
    name = 'a "b" & c'
    made = adapter(["unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"])
    made.metadata["trigger_words"] = ['x" + alert(1) + "']
    save(made, tmp_path / f"{name}.safetensors", dtype=torch.float32)
    card = items(page)[name]
    assert card["prompt"].startswith('"<sparsedict:a \\"b\\" & c:" + ') and card["prompt"].endswith('" x\\" + alert(1) + \\""')
    assert card["preview"].endswith("?name=a%20%22b%22%20%26%20c")
