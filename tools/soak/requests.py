"""Requests that hypothesis makes, to the pack's routes in ComfyUI over HTTP: one answer each, of the kinds that there are, within its time."""

from __future__ import annotations

import asyncio
import json
import time
import traceback
import urllib.parse
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from hypothesis import strategies as st
from PIL import Image

from .budget import slowness
from .hunt import VALUES, hunt
from .made_files import files
from .row import Row

_ANSWERS = {200, 304, 400, 404, 405, 409, 422}
SECONDS, MOST_BYTES = 3.0, 8 << 20  # of one request, on the machine of the files' budget
_FILE, _FOREIGN = "a.safetensors", "foreign.safetensors"
_SECRET = b"what nobody outside may read"


class Asked(NamedTuple):
    """A request; `content` is what the file of the folder holds meanwhile."""

    method: str
    path: str
    known: str
    body: bytes
    content: bytes | None


_PICTURES = st.sampled_from(["sparsedict_sweep_0.png", "sparsedict_sweep_text.png", "sparsedict_sweep_huge.png", "sparsedict_sweep_none.png", "../" + _FOREIGN, "/etc/passwd"])
_NAMES = (
    st.sampled_from([_FILE, _FILE, _FILE, "link.safetensors", "../" + _FOREIGN, "..\\" + _FOREIGN, "x" * 300 + ".safetensors", "\0.safetensors", "/etc/passwd", ""])
    | st.text(max_size=12).map(lambda text: text + ".safetensors")
    | st.text(max_size=20)
)
_BODIES = (
    st.fixed_dictionaries({"frames": st.lists(_PICTURES | VALUES, max_size=3), "labels": st.lists(st.text(max_size=30) | VALUES, max_size=3)})
    | st.integers(0, 3).flatmap(lambda n: st.fixed_dictionaries({"frames": st.lists(_PICTURES, min_size=n, max_size=n), "labels": st.lists(st.text(max_size=30), min_size=n, max_size=n)}))
    | st.fixed_dictionaries({"node": st.text(max_size=9) | VALUES, "prompt": st.text(max_size=9) | VALUES})
    | VALUES
).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40) | st.sampled_from([b"[" * 200_000, b'"\\ud800"', b"{" * 300_000, b"\xff", b"1" * 5000])


@st.composite
def _requests(draw: st.DrawFn) -> Asked:
    if draw(st.booleans()):
        name = draw(_NAMES.map(lambda name: urllib.parse.quote(name, safe="")) | st.sampled_from(["%ff%fe.safetensors", "%ed%a0%80.safetensors", "%00", "a&file=b"]))
        content = draw(st.none() | files())
        known = draw(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30))
        return Asked("GET", f"/sparsedict/adapter?file={name}{draw(st.sampled_from(['', '&order=greedy', '&order=x']))}", known, b"", content)
    path = draw(st.sampled_from(["sweep_gif", "sweep_gif", "train/keep", "train", "train/preview", "adapter"]))
    method = draw(st.sampled_from(["POST", "POST", "POST", "GET"]))
    return Asked(method, f"/sparsedict/{path}", "", b"" if method == "GET" else draw(_BODIES), None)


def requests(base: Path, count: int = 1000, minutes: float | None = None, seed: int = 0) -> tuple[Row, str]:
    """`count` requests, or as many as fit into `minutes`; beside the row, how they were answered. The host's modules are there already, with `base`'s folders."""
    row, answers = Row("requests to the routes in ComfyUI, made by hypothesis"), dict.fromkeys(sorted(_ANSWERS), 0)
    loop = asyncio.new_event_loop()
    client = loop.run_until_complete(_served())
    folder = base / "models" / "sparse_dicts"
    _fill(folder, base / "temp")

    def wrong(asked: Any) -> str:
        if asked.content is not None:
            (folder / _FILE).write_bytes(asked.content)
        started = time.process_time()
        try:
            status, body = loop.run_until_complete(_answer(client, asked))
        except Exception:
            return traceback.format_exc(limit=-2)
        seconds = time.process_time() - started
        if status not in answers or len(body) > MOST_BYTES or _SECRET in body:
            return f"status {status}, {len(body)} bytes, {body[:200]!r}"
        answers[status] += 1
        return f"{seconds:.1f} s" if seconds > SECONDS and seconds > SECONDS * slowness() else ""

    hunt(row, _requests(), wrong, count, minutes, seed)
    loop.run_until_complete(client.close())
    loop.close()
    return row, ", ".join(f"{number:,} × {status}" for status, number in answers.items() if number)


async def _served() -> Any:
    """The routes as the pack registers them, behind a real server on a free port."""
    from aiohttp import web
    from aiohttp.test_utils import TestClient, TestServer
    from server import PromptServer

    from ...nodes import routes

    PromptServer.instance = SimpleNamespace(routes=web.RouteTableDef())
    routes.register()
    app = web.Application()
    app.add_routes(PromptServer.instance.routes)
    client = TestClient(TestServer(app))
    await client.start_server()
    return client


async def _answer(client: Any, asked: Asked) -> tuple[int, bytes]:
    from yarl import URL

    headers = {"If-None-Match": asked.known} if asked.known else {}
    async with client.request(asked.method, URL(asked.path, encoded=True), data=asked.body or None, headers=headers) as answer:
        return answer.status, await answer.read()


def _fill(folder: Path, temp: Path) -> None:
    """A file outside of the folder with a link to it, and in the temp folder pictures of a sweep, one of them text and one huge."""
    foreign = folder.parent / _FOREIGN
    foreign.write_bytes(_SECRET)
    (folder / "link.safetensors").symlink_to(foreign)
    Image.new("RGB", (8, 8)).save(temp / "sparsedict_sweep_0.png")
    Image.new("1", (20_000, 20_000)).save(temp / "sparsedict_sweep_huge.png")
    (temp / "sparsedict_sweep_text.png").write_bytes(b"\x89PNG\r\n\x1a\n" + _SECRET)
