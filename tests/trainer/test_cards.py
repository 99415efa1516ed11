"""What other programs show of an adapter: the words and the picture in its file, and the files beside it."""

from __future__ import annotations

import base64
import hashlib
import io
import json

import torch
from PIL import Image
from toy_adapters import toy_adapter

from sparsedict.sparsedict_core.file_format import load, save
from sparsedict.trainer.cards import SIDE, THUMBNAIL, thumbnail, write_card


def fields(path):
    """The header's text fields, and the bytes after it."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length])["__metadata__"], data[8 + length :]


def test_the_words_in_a_file_are_those_of_the_specification_and_follow_a_change(tmp_path):
    adapter = toy_adapter()
    adapter.metadata |= {"base_family": "sdxl", "title": "Cat", "trigger_words": ["sks", "cat"], "modelspec.author": "somebody"}
    save(adapter, tmp_path / "a.safetensors")
    text, tensors = fields(tmp_path / "a.safetensors")
    assert text["modelspec.title"] == "Cat" and text["modelspec.trigger_phrase"] == "sks, cat" and "sks, cat" in text["modelspec.usage_hint"]
    assert text["modelspec.tags"] == "sparse dictionary, sdxl" and text["ss_base_model_version"] == "sdxl_base_v1-0" and text["modelspec.author"] == "somebody"
    assert text["modelspec.hash_sha256"] == "0x" + hashlib.sha256(tensors).hexdigest()
    again = load(tmp_path / "a.safetensors")
    again.metadata |= {"title": "Dog", "trigger_words": ["wuf"]}
    next(iter(again.sites.values())).dictionary_weight.data.mul_(2)
    save(again, tmp_path / "b.safetensors")
    text, tensors = fields(tmp_path / "b.safetensors")
    assert text["modelspec.title"] == "Dog" and text["modelspec.trigger_phrase"] == "wuf" and text["modelspec.author"] == "somebody"
    assert text["modelspec.hash_sha256"] == "0x" + hashlib.sha256(tensors).hexdigest()
    del again.metadata["trigger_words"]
    save(again, tmp_path / "c.safetensors")
    assert "modelspec.trigger_phrase" not in fields(tmp_path / "c.safetensors")[0]


def test_a_card_has_what_managers_read(tmp_path):
    adapter = toy_adapter()
    adapter.metadata |= {"base_family": "sdxl", "title": "Cat", "trigger_words": ["sks"]}
    picture = torch.zeros(3, 400, 800)
    adapter.metadata[THUMBNAIL] = thumbnail(picture)
    kind, _, data = adapter.metadata[THUMBNAIL].partition(",")
    with Image.open(io.BytesIO(base64.b64decode(data))) as small:
        assert kind == "data:image/jpeg;base64" and small.size == (SIDE, SIDE // 2)
    path = tmp_path / "cat.v1.safetensors"
    save(adapter, path)
    assert load(path).metadata[THUMBNAIL] == adapter.metadata[THUMBNAIL]
    write_card(path, adapter, picture)
    with Image.open(tmp_path / "cat.v1.preview.png") as beside:
        assert beside.size == (800, 400)
    card = json.loads((tmp_path / "cat.v1.metadata.json").read_text(encoding="utf-8"))
    # What ComfyUI-Lora-Manager cannot do without.
    assert {"file_name", "model_name", "file_path", "size", "modified", "sha256", "base_model", "preview_url"} <= card.keys()
    assert card["file_name"] == "cat.v1" and card["size"] == path.stat().st_size and card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert card["base_model"] == "SDXL 1.0" and card["civitai"]["trainedWords"] == ["sks"] and card["preview_url"].endswith("cat.v1.preview.png")
    write_card(path, adapter, None)
    assert json.loads((tmp_path / "cat.v1.metadata.json").read_text())["preview_url"] == ""
