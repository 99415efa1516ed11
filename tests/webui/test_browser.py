"""The panel and the cards in a real browser, on the real web UIs with their own pages; skipped where one of them is missing.

With SPARSEDICT_SCREENSHOTS=FOLDER the pictures of docs/hosts.md are written there.
"""

import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from webui.models import UNET_PATHS, write
from webui.test_real_hosts import data_folder, folder_of

from sparsedict.tools.browser import FLAGS, PATIENCE, chromium

HEAD = "SparseDict"


@pytest.fixture(scope="module", params=["A1111", "Forge Neo"])
def page(request, tmp_path_factory):
    """The web UI's page, ready."""
    prepared, program = folder_of(request.param), chromium()
    playwright = pytest.importorskip("playwright.sync_api", reason="the panel is driven only where playwright is installed")
    if program is None:
        pytest.skip("the panel is driven only where Chromium is installed")
    data = data_folder(prepared, tmp_path_factory.mktemp("data"))
    for name in ("zorp", "styles/ink"):
        write(data / "adapters", name, paths=UNET_PATHS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--skip-prepare-environment", "--skip-install", "--skip-version-check", "--no-hashing", "--port", str(port), "--data-dir", data]
    flags += ["--sparsedict-dir", data / "adapters"]
    if request.param == "A1111":
        flags += ["--use-cpu", "all", "--no-half", "--skip-load-model-at-start"]
    else:  # Gradio 4 serves only what is below the data folder; the host's own scripts and style lie beside it here
        flags += ["--cpu", "--force-fp32", "--gradio-allowed-path", (prepared / "host").resolve()]
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")} | {"HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
    with (data / "log").open("w") as log:
        server = subprocess.Popen([prepared / "venv/bin/python", "launch.py", *flags], cwd=prepared / "host", env=environment, stdout=log, stderr=log)
        try:
            wait_for(f"http://127.0.0.1:{port}/sparsedict/v1/list", server, data / "log")
            with playwright.sync_playwright() as started:
                browser = started.chromium.launch(executable_path=program, args=FLAGS)
                shown = browser.new_page(viewport={"width": 1280, "height": 1150})
                shown.set_default_timeout(PATIENCE)
                shown.troubles, shown.host = [], request.param
                shown.on("pageerror", lambda error: shown.troubles.append(str(error)) if "sparsedict" in (error.stack or "") else None)
                shown.goto(f"http://127.0.0.1:{port}/?__theme=dark", wait_until="domcontentloaded")
                shown.wait_for_selector("#txt2img_prompt textarea")
                shown.wait_for_selector(".sparsedict-panel[data-mounted]", state="attached")  # the host's scripts and the pack's have run
                yield shown
                browser.close()
        finally:
            server.terminate()
            server.wait(30)


def wait_for(address, server, log):
    for _ in range(1200):
        try:
            urllib.request.urlopen(address, timeout=5)
            return
        except OSError:
            assert server.poll() is None, log.read_text()[-3000:]
            time.sleep(0.5)
    raise AssertionError(f"the web UI did not start:\n{log.read_text()[-3000:]}")


def prompt(page):
    return page.input_value("#txt2img_prompt textarea")


def picture(page, name, place):
    if folder := os.environ.get("SPARSEDICT_SCREENSHOTS"):
        page.wait_for_timeout(700)
        page.screenshot(path=Path(folder) / f"{page.host.lower().replace(' ', '-')}-{name}.png", clip=place.bounding_box())


def test_the_panel_writes_the_tag_and_follows_the_prompt(page):
    page.fill("#txt2img_prompt textarea", "a cat")
    head = page.locator("#txt2img_sparsedict_panel")
    head.get_by_text(HEAD, exact=True).first.click()
    panel = head.locator(".sparsedict-panel")
    panel.get_by_label("adapter", exact=True).select_option("zorp")
    assert prompt(page) == "a cat <sparsedict:zorp:1>"
    panel.get_by_role("button", name="25%", exact=True).click()
    assert prompt(page) == "a cat <sparsedict:zorp:1:keep=0.25>"
    panel.locator("input[type=number]").fill("0.8")
    assert prompt(page) == "a cat <sparsedict:zorp:0.8:keep=0.25>"
    panel.get_by_label("adapter", exact=True).select_option("styles/ink")
    panel.get_by_label("Atoms by address").fill("L0[0-2]")
    panel.get_by_label("Atoms by address").press("Enter")
    page.wait_for_function("() => document.querySelector('#txt2img_prompt textarea').value.endsWith('<sparsedict:styles/ink:1:atoms=L0[0-2]>')")
    picture(page, "panel", head)
    # Written by hand, as by a pasted text.
    page.fill("#txt2img_prompt textarea", "a dog <sparsedict:zorp:0.5:top=7>")
    page.wait_for_function("() => document.querySelector('#txt2img_sparsedict_panel input[type=number]').value === '0.5'")
    panel.locator("button", has_text="×").click()
    assert prompt(page) == "a dog" and not page.troubles


def test_the_cards_write_the_tag_with_its_words(page):
    page.fill("#txt2img_prompt textarea", "")
    page.locator("#txt2img_extra_tabs button").filter(has_text=HEAD).first.click()
    card = page.locator("#txt2img_sparsedict_cards .card[data-name='zorp']")
    card.wait_for()
    loaded = "() => [...document.querySelectorAll('#txt2img_sparsedict_cards .card img')].every((img) => img.complete && img.naturalWidth > 0)"
    page.wait_for_function(loaded)
    picture(page, "cards", page.locator("#txt2img_sparsedict_cards"))
    card.click()
    page.wait_for_function("() => document.querySelector('#txt2img_prompt textarea').value")
    assert prompt(page).strip() == "<sparsedict:zorp:1> zorp" and not page.troubles


def test_the_training_tab_shows_a_run_and_says_what_is_wrong(page):
    page.locator("#tabs button").filter(has_text=HEAD).first.click()
    page.get_by_role("group", name="Training monitor").wait_for()
    page.fill("#sparsedict_images textarea, #sparsedict_images input", "/nowhere")
    page.click("#sparsedict_train")
    page.get_by_text("is no folder on this machine").wait_for()
    picture(page, "training", page.locator("#tab_sparsedict_training"))
    assert not page.troubles
