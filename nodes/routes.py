"""Routes for the front end: what is in an adapter's file, how the training run is going, a sweep as a GIF; these change nothing. And one that
ends a training run and keeps what it has learned.

Only files of the folders registered as `sparse_dicts` are read, and pictures that Sweep Viewer has left in the host's temp folder; a name
or a link that leads out of them is refused.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import folder_paths

from ..host_shared.answers import LONGEST_NAME, Refusal, are_texts, as_json, gif_answer, table_answer
from ..sparsedict_core.errors import FileFormatError
from ..sparsedict_core.shown_text import escaped
from . import files
from .sweep_viewer import NAME as SWEEP
from .train_events import STATE

LONGEST_BODY = 1 << 18  # bytes of a request


def served_path(name: str) -> Path:
    """The real path of a file by its name in the host's lists. Raises FileFormatError for whatever may not be served."""
    if not are_texts([name], 4 * LONGEST_NAME) or not name.lower().endswith(".safetensors"):
        raise FileFormatError(f"{name!r} is no name of a .safetensors file.")
    linked = False
    # A workflow from Windows separates folders by a backslash.
    for folder, form in itertools.product(folder_paths.get_folder_paths(files.FOLDER), (name, name.replace("\\", "/"))):
        root = os.path.realpath(folder)
        asked = os.path.normpath(os.path.join(root, form))
        if not _below(asked, root) or not os.path.isfile(asked):
            continue
        real = os.path.realpath(asked)
        if any(_below(real, os.path.realpath(other)) for other in folder_paths.get_folder_paths(files.FOLDER)):
            return Path(real)
        linked = True
    if linked:
        raise FileFormatError(f"{name!r} is a link to outside of the {files.FOLDER} folders; add its folder to extra_model_paths.yaml.")
    raise FileFormatError(files.missing(name))


def _below(path: str, root: str) -> bool:
    try:
        return os.path.commonpath([path, root]) == root and path != root
    except ValueError:  # other drives
        return False


def adapter_answer(name: str, greedy: bool = False, known: str | None = None) -> tuple[int, str, bytes]:
    """Status, ETag and body. `known` is the ETag that the browser has. Never raises for a bad name or file."""
    try:
        tag, body = table_answer(served_path(name), {"file": name}, greedy, known)
    except FileFormatError as error:
        return 404, "", _refused(error)
    except Refusal as refusal:
        return refusal.status, "", _refused(refusal)
    return (304, tag, b"") if body is None else (200, tag, body)


def sweep_answer(data: Any) -> tuple[int, bytes]:
    """Status and body: {"frames": file names, "labels": texts} → a GIF, or why there is none. Never raises for what a browser sent."""
    try:
        return 200, gif_answer(data, Path(folder_paths.get_temp_directory()), SWEEP)
    except Refusal as refusal:
        return refusal.status, _refused(refusal)


def keep_answer(data: Any) -> tuple[int, bytes]:
    """Status and body: {"node", "prompt"} of the run that shall end and keep what it has learned, both as the events name them."""
    run = {name: data.get(name) for name in ("node", "prompt")} if isinstance(data, dict) else {}
    if not run or not are_texts(list(run.values()), LONGEST_NAME):
        return 400, as_json({"error": "name the training run by its node and its prompt, as its events do."})
    if not STATE.ask_to_keep(run):
        return 409, as_json({"error": f"node {run['node']} is not training for this prompt any more, so there is nothing to stop; look at the node's log."})
    return 200, as_json({"stopping": True})


def _refused(error: Exception) -> bytes:
    return as_json({"error": str(error)})


async def _asked(request: Any) -> Any:
    """What a browser has sent, or None for what is too long, no JSON, or nested without end."""
    body = bytearray()
    async for part in request.content.iter_any():
        body += part
        if len(body) > LONGEST_BODY:
            return None
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError):
        return None


def note_copy(server: Any) -> bool:
    """Lets the routes answer with this copy of the pack, whose nodes the host has taken last; says whether there was another one before."""
    other = getattr(server, "_sparsedict", None)
    server._sparsedict = sys.modules[__name__]
    if other is None:
        return False
    this_folder, other_folder = (Path(module.__file__).resolve().parents[1] for module in (server._sparsedict, other))
    logging.warning(escaped(f"SparseDict is installed twice: {other_folder} and {this_folder}. The nodes are those of {this_folder}; remove one of the two folders and restart."))
    return True


def register() -> bool:
    """Adds the routes to the host's server, once; False where nodes run without one."""
    try:
        from aiohttp import web
        from server import PromptServer
    except ImportError:
        return False
    server = getattr(PromptServer, "instance", None)
    if server is None or note_copy(server):
        return False

    @server.routes.get("/sparsedict/adapter")
    async def adapter(request: Any) -> Any:
        query = request.rel_url.query
        work = asyncio.get_running_loop().run_in_executor(
            None, server._sparsedict.adapter_answer, query.get("file", ""), query.get("order") == "greedy", request.headers.get("If-None-Match")
        )
        status, tag, body = await work
        headers = {"Cache-Control": "no-cache", **({"ETag": tag} if tag else {})}
        if status == 304:
            return web.Response(status=304, headers=headers)
        answer = web.Response(status=status, body=body, headers=headers, content_type="application/json", charset="utf-8")
        if len(body) > 10_000:
            answer.enable_compression()
        return answer

    @server.routes.post("/sparsedict/sweep_gif")
    async def sweep_gif(request: Any) -> Any:
        status, body = await asyncio.get_running_loop().run_in_executor(None, server._sparsedict.sweep_answer, await _asked(request))
        return web.Response(status=status, body=body, content_type="image/gif" if status == 200 else "application/json")

    @server.routes.get("/sparsedict/train")
    async def train(_: Any) -> Any:
        return web.json_response(server._sparsedict.STATE.job(), headers={"Cache-Control": "no-store"})

    @server.routes.post("/sparsedict/train/keep")
    async def keep(request: Any) -> Any:
        status, body = server._sparsedict.keep_answer(await _asked(request))
        return web.Response(status=status, body=body, content_type="application/json")

    @server.routes.get("/sparsedict/train/preview")
    async def preview(_: Any) -> Any:
        picture = server._sparsedict.STATE.preview()
        if picture is None:
            return web.Response(status=404)
        return web.Response(body=picture, content_type="image/jpeg", headers={"Cache-Control": "no-store"})

    return True
