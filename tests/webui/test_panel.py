"""The panel's argument, what it writes, and what the browser may load."""

import json
import re
import types
from pathlib import Path

import pytest
import torch
from webui.models import WIDTH

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.errors import TrainingError
from sparsedict.sparsedict_core.file_format import save
from sparsedict.sparsedict_core.prompt_tags import find_tags
from sparsedict.sparsedict_core.site import SiteName, SparseSite
from sparsedict.webui_host import api, cards, training, training_tab
from sparsedict.webui_host.network import MISTAKE
from sparsedict.webui_host.panel import add_tags

PROJECT = Path(__file__).resolve().parents[2]


def test_the_core_reads_what_the_panel_writes():
    """tests/web/webui_tags.test.mjs writes these texts from these choices."""
    config = AdapterConfig(atoms=4, rank=2)
    sites = [SparseSite.create(SiteName(f"unet.a.{layer}.to_out.0", layer), WIDTH, WIDTH, config, torch.Generator().manual_seed(0)) for layer in (0, 1)]
    for site in sites:
        site.importance = torch.tensor([1.0, 2.0, 3.0, 4.0])
    adapter = SparseAdapter(sites, config, "unet", {})
    for written in json.loads((PROJECT / "tests/vectors/webui_tags.json").read_text()):
        _, [tag] = find_tags(f"a cat {written['text']}")
        gains = tag.gains(adapter)
        kept = adapter.atom_count if gains is None else sum(int((gain != 0).sum()) for gain in gains.values())
        assert (kept, tag.strength) == (written["kept"], 0.8), written["text"]


def test_the_scripts_argument_adds_tags_to_every_prompt():
    p = types.SimpleNamespace(prompt="a cat", hr_prompt="")
    add_tags(p, "<sparsedict:zorp:0.8>")
    assert (p.prompt, p.hr_prompt) == ("a cat <sparsedict:zorp:0.8>", "")
    add_tags(p, " ")
    add_tags(p)
    assert p.prompt == "a cat <sparsedict:zorp:0.8>"
    p = types.SimpleNamespace(prompt=["a", "b"], hr_prompt="c")
    add_tags(p, "<sparsedict:x>")
    assert (p.prompt, p.hr_prompt) == (["a <sparsedict:x>", "b <sparsedict:x>"], "c <sparsedict:x>")


@pytest.mark.parametrize("wrong", ["zorp", "<sparsedict:x> and more", "<sparsedict:x:keep=9>", "<SparseDict:x>", 5, ["<sparsedict:x>"]])
def test_a_wrong_argument_of_the_script_is_a_mistake_of_the_picture(wrong):
    """What a script raises the host only prints, and then draws."""
    p = types.SimpleNamespace(prompt="a cat", hr_prompt="")
    add_tags(p, wrong)
    assert "the script's argument" in getattr(p, MISTAKE) and p.prompt == "a cat"


def test_what_a_card_and_the_training_tab_say_is_text(tmp_path, monkeypatch):
    """The host may take a card's description for HTML, and Gradio takes what the tab says for it."""
    evil = "\u202e<img src=x>"
    site = SparseSite.create(SiteName("unet.a.to_out.0", 0), WIDTH, WIDTH, AdapterConfig(atoms=4, rank=2), torch.Generator().manual_seed(0))
    save(SparseAdapter([site], AdapterConfig(atoms=4, rank=2), "unet", {"title": evil, "trigger_words": [evil]}), tmp_path / "a.safetensors")
    assert cards.describe(tmp_path / "a.safetensors")[0] == "\\u202e<img src=x>"

    def start(*values):
        if values:
            raise TrainingError(evil)
        return evil

    monkeypatch.setattr(training, "start", start)
    assert training_tab.begin(1) == "<b>Not started:</b> \\u202e&lt;img src=x&gt;" and "<" not in training_tab.begin()


def test_the_panels_scripts_load_each_other_and_no_host():
    """Every import leads to a file that the route serves, and none of them to ComfyUI's front end or to words about its nodes."""
    waiting, seen = [("webui_host", "prompt_panel.js"), ("webui_host", "training_tab.js")], set()
    while waiting:
        folder, name = waiting.pop()
        if (folder, name) in seen:
            continue
        seen.add((folder, name))
        text = api.SCRIPTS[folder, name].read_text()
        said = " ".join(re.findall(r'\bt\("((?:[^"\\]|\\.)+)"', text)).lower()
        assert not re.search(r"\b(node|graph|comfyui)", said), name
        for line in text.splitlines():
            if line.startswith("import "):
                target = line.split('"')[1]
                parts = target.split("/")
                assert parts[0] in (".", "..") and "scripts" not in parts, (name, target)
                waiting.append((folder if parts[0] == "." else parts[1], parts[-1]))
    assert {("web", "atom_selector.js"), ("web", "train_monitor.js")} <= seen
    assert ("webui_host", "api.py") not in api.SCRIPTS
