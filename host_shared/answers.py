"""What a host's routes answer, from the files and folders that the host has found. How a refusal is told to the browser is the host's own."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.atom_table import atom_table
from ..sparsedict_core.errors import FileFormatError, SparseDictError
from ..sparsedict_core.file_format import load
from ..sparsedict_core.shown_text import escaped_json

KEPT = 8  # tables in memory
MOST_FRAMES, WIDEST = 100, 1024  # of an animation
MOST_PIXELS = 1 << 26  # of a picture for it, before it is made smaller
LONGEST_LABEL, MOST_LINES, LONGEST_NAME = 400, 8, 255
_tables: OrderedDict[tuple[str, str, str], bytes] = OrderedDict()


class Refusal(SparseDictError):
    """A request that is not followed, and why; `status` is HTTP's number."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def identity(path: Path, greedy: bool) -> str:
    """Changes with the content; an ETag."""
    status = path.stat()
    return f'"1-{status.st_size:x}-{status.st_mtime_ns:x}{"-g" if greedy else ""}"'


def table_answer(
    path: Path, about: dict[str, str], greedy: bool = False, known: str | None = None, read: Callable[[Path], SparseAdapter] = load
) -> tuple[str, bytes | None]:  # fmt: skip
    """ETag, and as JSON `about` (what the host says of the file) with the atoms in it; None for JSON that is among `known`, the browser's ETags.

    Raises Refusal for a file that cannot be used.
    """
    try:
        tag = identity(path, greedy)
        if known is not None and tag in [part.strip().removeprefix("W/") for part in known.split(",")]:
            return tag, None
        key = (str(path), tag, json.dumps(about))
        if key not in _tables:
            _tables[key] = as_json({**about, **atom_table(read(path), greedy)})
            while len(_tables) > KEPT:
                _tables.popitem(last=False)
        return tag, _tables[key]
    except FileFormatError as error:  # names the file itself
        raise Refusal(422, str(error)) from error
    except (SparseDictError, OSError) as error:
        raise Refusal(422, f"{path.name}: {error}") from error


def gif_answer(data: Any, folder: Path, prefix: str) -> bytes:
    """{"frames": file names, "labels": texts} → a GIF, of pictures that lie in `folder` under names that begin with `prefix`.

    Raises Refusal for whatever else a browser may have sent.
    """
    from PIL import Image

    from ..pictures import gif_bytes

    frames, labels = (data.get("frames"), data.get("labels")) if isinstance(data, dict) else (None, None)
    if not (are_texts(frames, LONGEST_NAME) and are_texts(labels, LONGEST_LABEL) and 0 < len(frames) <= MOST_FRAMES and len(labels) == len(frames)):
        raise Refusal(400, f"a GIF takes 1 to {MOST_FRAMES} pictures of a sweep, and a label of at most {LONGEST_LABEL} letters for each.")
    real, pictures = os.path.realpath(folder), []
    for name in frames:
        path = os.path.realpath(os.path.join(real, name))
        if os.path.dirname(path) != real or not os.path.basename(path).startswith(prefix) or not os.path.isfile(path):
            raise Refusal(404, "the sweep's pictures are gone, as after a restart of the server; run the sweep again.")
        try:
            with warnings.catch_warnings(), Image.open(path, formats=("PNG", "JPEG", "WEBP")) as picture:
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # this limit is our own
                if picture.width * picture.height > MOST_PIXELS:
                    raise Refusal(422, f"a picture of the sweep has {picture.width} × {picture.height} pixels, too many for a GIF; make the sweep smaller.")
                picture.thumbnail((WIDEST, WIDEST))
                pictures.append(picture.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # whatever Pillow says of what is no picture
            raise Refusal(422, "a picture of the sweep cannot be read; run the sweep again.") from error
    return gif_bytes(pictures, labels)


def are_texts(value: Any, longest: int) -> bool:
    """Whether it is a list of texts that a file or a picture can have."""
    return isinstance(value, list) and all(
        isinstance(text, str) and len(text) <= longest and text.count("\n") < MOST_LINES and "\0" not in text and not re.search("[\ud800-\udfff]", text) for text in value
    )


def as_json(value: Any) -> bytes:
    """JSON that any page may show."""
    return escaped_json(json.dumps(value, ensure_ascii=False, separators=(",", ":"))).encode()
