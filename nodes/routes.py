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
import re
import sys
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import folder_paths

from ..sparsedict_core.atom_table import atom_table
from ..sparsedict_core.errors import FileFormatError, SparseDictError
from ..sparsedict_core.file_format import load
from ..sparsedict_core.shown_text import escaped, escaped_json, shown
from . import files
from .sweep_viewer import NAME as SWEEP
from .train_events import STATE

KEPT = 8  # answers in memory
MOST_FRAMES, WIDEST = 100, 1024  # of an animation; as many as Atom Sweep has steps
MOST_PIXELS = 1 << 26  # of a picture for it, before it is made smaller
LONGEST_LABEL, MOST_LINES, LONGEST_NAME = 400, 8, 255
LONGEST_BODY = 1 << 18  # bytes of a request


def served_path(name: str) -> Path:
    """The real path of a file by its name in the host's lists. Raises FileFormatError for whatever may not be served."""
    if not _texts([name], 4 * LONGEST_NAME) or not name.lower().endswith(".safetensors"):
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


def identity(path: Path, greedy: bool) -> str:
    """Changes with the content; an ETag."""
    status = path.stat()
    return f'"1-{status.st_size:x}-{status.st_mtime_ns:x}{"-g" if greedy else ""}"'


_answers: OrderedDict[tuple[str, str], bytes] = OrderedDict()


def adapter_answer(name: str, greedy: bool = False, known: str | None = None) -> tuple[int, str, bytes]:
    """Status, ETag and body. `known` is the ETag that the browser has. Never raises for a bad name or file."""
    try:
        path = served_path(name)
    except FileFormatError as error:
        return 404, "", _body({"error": str(error)})
    try:
        tag = identity(path, greedy)
        if known is not None and tag in [part.strip().removeprefix("W/") for part in known.split(",")]:
            return 304, tag, b""
        body = _answers.get((str(path), tag))
        if body is None:
            body = _body({"file": name, **atom_table(load(path), greedy)})
            _answers[str(path), tag] = body
            while len(_answers) > KEPT:
                _answers.popitem(last=False)
        return 200, tag, body
    except FileFormatError as error:  # names the file itself
        return 422, "", _body({"error": str(error)})
    except (SparseDictError, OSError) as error:
        return 422, "", _body({"error": shown(f"{name}: {error}")})


def sweep_answer(data: Any) -> tuple[int, bytes]:
    """Status and body: {"frames": file names, "labels": texts} → a GIF, or why there is none. Never raises for what a browser sent."""
    from PIL import Image

    from ..pictures import gif_bytes

    frames, labels = (data.get("frames"), data.get("labels")) if isinstance(data, dict) else (None, None)
    if not (_texts(frames, LONGEST_NAME) and _texts(labels, LONGEST_LABEL) and 0 < len(frames) <= MOST_FRAMES and len(labels) == len(frames)):
        return 400, _body({"error": f"a GIF takes 1 to {MOST_FRAMES} pictures of a Sweep Viewer, and a label of at most {LONGEST_LABEL} letters for each."})
    folder, pictures = os.path.realpath(folder_paths.get_temp_directory()), []
    for name in frames:
        path = os.path.realpath(os.path.join(folder, name))
        if os.path.dirname(path) != folder or not os.path.basename(path).startswith(SWEEP) or not os.path.isfile(path):
            return 404, _body({"error": "the sweep's pictures are gone, as after a restart of the server; run Sweep Viewer again."})
        try:
            with warnings.catch_warnings(), Image.open(path, formats=("PNG", "JPEG", "WEBP")) as picture:
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # this limit is our own
                if picture.width * picture.height > MOST_PIXELS:
                    return 422, _body({"error": f"a picture of the sweep has {picture.width} × {picture.height} pixels, too many for a GIF; make the sweep smaller."})
                picture.thumbnail((WIDEST, WIDEST))
                pictures.append(picture.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # whatever Pillow says of what is no picture
            return 422, _body({"error": "a picture of the sweep cannot be read; run Sweep Viewer again."})
    return 200, gif_bytes(pictures, labels)


def keep_answer(data: Any) -> tuple[int, bytes]:
    """Status and body: {"node", "prompt"} of the run that shall end and keep what it has learned, both as the events name them."""
    node, prompt = (data.get("node"), data.get("prompt")) if isinstance(data, dict) else (None, None)
    if not _texts([node, prompt], LONGEST_NAME):
        return 400, _body({"error": "name the training run by its node and its prompt, as its events do."})
    if not STATE.ask_to_keep(node, prompt):
        return 409, _body({"error": f"node {node} is not training for this prompt any more, so there is nothing to stop; look at the node's log."})
    return 200, _body({"stopping": True})


def _texts(value: Any, longest: int) -> bool:
    """A list of texts that a file or a picture can have."""
    return isinstance(value, list) and all(
        isinstance(text, str) and len(text) <= longest and text.count("\n") < MOST_LINES and "\0" not in text and not re.search("[\ud800-\udfff]", text) for text in value
    )


def _body(value: Any) -> bytes:
    return escaped_json(json.dumps(value, ensure_ascii=False, separators=(",", ":"))).encode()


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
