"""The real host: in this process (`comfy`), there with tiny models and our nodes, and as a server (`server`).

Both need the folder that `dev.py comfy` makes.

The host's folder goes first on sys.path. Its package `comfy` and this folder are two parts of one namespace package; a
file here must therefore not take the name of a file in the host's comfy/.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import host_adapters
import pytest
import tiny_models
import torch
from node_calls import make_value

from sparsedict.tools import browser
from sparsedict.tools.comfy_host import default_root
from sparsedict.tools.host_in_process import make_base, start


@pytest.fixture(scope="session")
def host_root() -> Path:
    root = default_root()
    if not (root / "main.py").exists():
        pytest.skip("no ComfyUI here: `python3 dev.py comfy --setup-only` makes one (dev.py test does it by itself), or set COMFYUI_ROOT")
    return root


@pytest.fixture(scope="session")
def comfy(host_root: Path, tmp_path_factory: pytest.TempPathFactory):
    """The host's modules can be imported, on the CPU, with input, output, models and user folders of their own."""
    if "comfy.cli_args" not in sys.modules:
        base = make_base(tmp_path_factory.mktemp("host"))
        start(host_root, base)
        import comfy.model_management
        import folder_paths

        assert str(comfy.model_management.get_torch_device()) == "cpu"
        assert folder_paths.base_path == str(base)
    import comfy

    torch.set_num_threads(1)
    return comfy


@pytest.fixture(scope="module", autouse=True)
def _unload() -> Iterator[None]:
    yield
    host_adapters.unload()  # later the interpreter goes down, and the host's modules with it, before its models


@pytest.fixture(params=tiny_models.FAMILIES)
def family(request: pytest.FixtureRequest, comfy) -> str:
    return request.param


@pytest.fixture
def patcher(family: str):
    """The tiny model of each family in turn."""
    return host_adapters.loaded(family)


@pytest.fixture(scope="module")
def nodes(comfy) -> dict[str, type]:
    """The pack's node classes by id."""
    from sparsedict.nodes import SparseDictExtension

    classes = asyncio.run(SparseDictExtension().get_node_list())
    return {cls.GET_SCHEMA().node_id: cls for cls in classes}


@pytest.fixture(scope="module")
def model(comfy):
    """A tiny SD3."""
    return tiny_models.load("sd3")


@pytest.fixture(scope="module")
def value(model):
    """A SPARSE_DICT for `model`."""
    return make_value(model)


@pytest.fixture(scope="module")
def browser_page(server, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """One page for all tests of a file, as the front end takes seconds to start; not for all files, as Playwright keeps an event loop
    open in which no other can run. Tests take it as `page`."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if browser.chromium() is None:
        pytest.skip("no Chromium here (Debian: apt install chromium)")
    with browser.front_end(server, tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture
def page(browser_page) -> Iterator:
    """The front end; what the pack writes into its console, and asks of other machines, fails the test. `page.troubles` are these lines."""
    browser_page.troubles.clear()
    yield browser_page
    assert browser_page.troubles == []


@pytest.fixture(scope="session")
def server(host_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """A host of its own process with the pack in it, shared by all tests of one worker."""
    from host import Host

    with Host(host_root, make_base(tmp_path_factory.mktemp("server"))) as host:
        yield host
