"""What the pack registers with a web UI, at a start and at each reload of its scripts, by the very file that the host runs."""

import importlib.util
import sys
import types
from pathlib import Path

import pytest
import torch
from webui import fake_host

ENTRY = Path(__file__).resolve().parents[2] / "scripts" / "sparsedict_webui.py"


@pytest.fixture
def load(host, monkeypatch):
    """Runs scripts/sparsedict_webui.py as the host does, anew at each call."""
    monkeypatch.setitem(sys.modules, "gradio", types.SimpleNamespace(Radio=object))
    monkeypatch.setattr(host, "options_templates", {})

    def run():
        for name in ("networks", "pages", "before_ui", "script_unloaded"):
            fake_host.registered[name].clear()
        spec = importlib.util.spec_from_file_location("sparsedict_webui.py", ENTRY)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield run
    for name in [name for name in sys.modules if name.split(".")[0] == "sparsedict_extension"]:
        del sys.modules[name]


def before_ui():
    for callback in fake_host.registered["before_ui"]:
        callback()


def test_all_parts_are_there_after_a_start_and_once_after_a_reload(load, host):
    for _ in range(2):
        load()
        before_ui()
        assert [network.name for network in fake_host.registered["networks"]] == ["sparsedict"]
        assert [page.title for page in fake_host.registered["pages"]] == ["SparseDict"]
        assert list(host.options_templates) == ["sparsedict_on_mistake"] and host.options_templates["sparsedict_on_mistake"].default == "stop"
        assert all(fake_host.registered[name] for name in ("app_started", "cfg_denoiser", "model_loaded", "script_unloaded", "ui_tabs"))
    axes = sys.modules["modules"].scripts.scripts_data[1].module.axis_options
    assert sum(option.label.startswith("[SparseDict]") for option in axes) == 4


@pytest.mark.parametrize("when, arguments", [("script_unloaded", ()), ("model_loaded", (None,))])
def test_an_unloaded_script_and_another_checkpoint_leave_the_bare_base(load, model, when, arguments):
    load()
    before_ui()
    (network,) = fake_host.registered["networks"]
    network.activate(fake_host.StableDiffusionProcessing(model), [fake_host.params("zorp")])
    assert any(module._forward_hooks for module in model.modules())
    for callback in fake_host.registered[when]:
        callback(*arguments)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_script_is_always_shown_and_its_argument_is_tags(load):
    script = load().SparseDictScript()
    assert script.title() == "SparseDict" and script.show(False) is sys.modules["modules"].scripts.AlwaysVisible
    p = types.SimpleNamespace(prompt="a cat", hr_prompt="")
    script.before_process(p, "<sparsedict:zorp:0.8>")
    assert p.prompt == "a cat <sparsedict:zorp:0.8>"


def test_an_old_torch_is_one_sentence_and_nothing_is_registered(load, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.1.2+cu121")
    with pytest.raises(RuntimeError, match=r"needs PyTorch 2\.4 or newer, this web UI has 2\.1\.2"):
        load()
    assert not fake_host.registered["before_ui"] and not fake_host.registered["ui_tabs"]
