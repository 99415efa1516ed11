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


def test_names_and_words_cannot_leave_their_quotes(page, tmp_path):
    name = 'a "b" & c'
    made = adapter(["unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"])
    made.metadata["trigger_words"] = ['x" + alert(1) + "']
    save(made, tmp_path / f"{name}.safetensors", dtype=torch.float32)
    card = items(page)[name]
    assert card["prompt"].startswith('"<sparsedict:a \\"b\\" & c:" + ') and card["prompt"].endswith('" x\\" + alert(1) + \\""')
    assert card["preview"].endswith("?name=a%20%22b%22%20%26%20c")
