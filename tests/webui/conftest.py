"""The fake web UI with a folder of adapters and a small model."""

import types

import pytest
import torch
from webui import fake_host
from webui.models import WIDTH, unet, write

from sparsedict.webui_host import network


@pytest.fixture
def host(tmp_path, monkeypatch):
    """The fake's `shared`; `tmp_path` holds `zorp` and `animals/cat`."""
    shared = fake_host.install(monkeypatch, tmp_path, types.SimpleNamespace(sparsedict_on_mistake=network.STOP, samples_format="png"))
    write(tmp_path)
    write(tmp_path, "animals/cat")
    yield shared
    network.APPLIED.clear()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return unet().requires_grad_(False)


@pytest.fixture
def drawn(host, model):
    """Draws with a tag, as one of the host's passes does: activate, then the model, then deactivate."""
    x, net = torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(2)), network.make_network()

    def draw(*tags, p=None, end=True):
        p = p or fake_host.StableDiffusionProcessing(model)
        net.activate(p, [fake_host.params(tag) for tag in tags])
        picture = model(x)
        if end:
            net.deactivate(p)
        return picture

    return draw
