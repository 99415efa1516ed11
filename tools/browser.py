"""Chromium on a running host's front end: for tests, screenshots and frame times. Playwright and Debian's `chromium` are needed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Nothing is asked of any other machine, and nothing is drawn by a graphics card that is not there.
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip
PATIENCE = 120_000  # milliseconds; a loaded machine takes its time
NAMES = ("chromium", "chromium-browser", "google-chrome")
THEMES = ("dark", "light")
READY = "() => !!(window.app?.graph && window.LiteGraph?.registered_node_types?.SparseDictTrain)"


def chromium() -> str | None:
    """The program, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def front_end(host: Any, profile: Path, size: tuple[int, int] = (1100, 900), fine: float = 1, settings: dict[str, Any] | None = None) -> Iterator[Any]:
    """A page that shows the host (tests/comfy/host.py), with no dialog over it. `fine` is the number of pixels to a CSS pixel."""
    from playwright.sync_api import sync_playwright

    for name, value in {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False, **(settings or {})}.items():
        host.post(f"/settings/{name}", value)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            str(profile), executable_path=chromium(), args=FLAGS, viewport={"width": size[0], "height": size[1]}, device_scale_factor=fine
        )
        page = browser.pages[0]
        page.set_default_timeout(PATIENCE)
        page.add_init_script("localStorage.setItem('vueNodesBannerDismissed', 'true')")
        page.troubles = []
        _watch(page, f"http://127.0.0.1:{host.port}")
        start(page, host)
        yield page
        browser.close()


def _watch(page: Any, address: str) -> None:
    """Gathers in `page.troubles` what goes wrong in the pack's own files. (The front end has troubles of its own, as with the internet.)"""

    def ours(text: str) -> bool:
        return "sparsedict" in text.lower()

    def console(message: Any) -> None:
        url = (message.location or {}).get("url", "")
        if message.type in ("error", "warning") and url.startswith(address) and ours(f"{message.text} {url}"):
            page.troubles.append(f"{message.type}: {message.text} ({url})")

    def request(event: dict[str, Any]) -> None:
        url = event["request"]["url"]
        if not url.startswith((address, address.replace("http", "ws", 1), "data:", "blob:")) and ours(str(event.get("initiator"))):
            page.troubles.append(f"request to {url}")

    page.on("pageerror", lambda error: page.troubles.append(f"uncaught: {error}"))
    page.on("console", console)
    # Only the browser's own protocol tells which script has asked.
    protocol = page.context.new_cdp_session(page)
    protocol.send("Network.enable")
    protocol.on("Network.requestWillBeSent", request)


def start(page: Any, host: Any) -> None:
    """(Re)loads the front end and waits until the pack's nodes are there."""
    page.goto(f"http://127.0.0.1:{host.port}", wait_until="domcontentloaded")
    page.wait_for_function(READY)
    page.wait_for_timeout(1500)


def open_workflow(page: Any, workflow: dict[str, Any], ready: str = "() => true", offset: tuple[float, float] = (40, 90)) -> None:
    """Shows a workflow at its natural size, and waits for `ready`."""
    page.evaluate(
        "async ([graph, offset]) => { await app.loadGraphData(graph); app.canvas.ds.scale = 1; app.canvas.ds.offset = offset; app.canvas.setDirty(true, true); }",
        [workflow, list(offset)],
    )
    page.wait_for_function(ready)
    settle(page)


def settle(page: Any) -> None:
    """Waits until the panels stand still; the host moves them some frames after its nodes."""
    page.evaluate(
        """async () => { const where = () => JSON.stringify([...document.querySelectorAll(".sd-panel")].map(panel => panel.getBoundingClientRect()));
        for (let still = 0, before = ""; still < 6; before = where()) { app.canvas.setDirty(true, true);
          await new Promise(frame => requestAnimationFrame(() => requestAnimationFrame(frame))); still = where() === before ? still + 1 : 0; } }"""
    )


def set_setting(page: Any, name: str, value: Any) -> None:
    page.evaluate("([name, value]) => app.extensionManager.setting.set(name, value)", [name, value])


def set_nodes_2(page: Any, on: bool) -> None:
    """The host's other renderer of nodes. The graph that is open must have a node: that it is drawn anew tells when the change is done."""
    set_setting(page, "Comfy.VueNodes.Enabled", on)
    page.wait_for_function("on => (document.querySelectorAll('[data-node-id]').length > 0) === on", arg=on)
    settle(page)


def set_theme(page: Any, theme: str) -> None:
    """`dark` or `light`, as a person would choose it in the host's settings."""
    set_setting(page, "Comfy.ColorPalette", theme)
    page.wait_for_timeout(800)
