"""What shows an adapter in other programs: a small picture in the file itself, and, where asked for, the files beside it that managers of LoRAs read.

`<name>.preview.png` is what the web UIs' cards and managers show; `<name>.metadata.json` has the fields of ComfyUI-Lora-Manager.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.atomic_write import write_atomically

THUMBNAIL = "modelspec.thumbnail"
SIDE = 256  # pixels, as the specification recommends
#: Families by the names that managers have for them; others keep their own.
BASES = {"sd15": "SD 1.5", "sd20": "SD 2.0", "sdxl": "SDXL 1.0", "sd3": "SD 3", "flux": "Flux.1 D", "flux2": "Flux.2 D", "qwen_image": "Qwen", "chroma": "Chroma",
         "z_image": "ZImageTurbo", "lumina2": "Lumina"}  # fmt: skip


def thumbnail(picture: Tensor) -> str:
    """A picture (3, H, W) in [-1, 1] as a small JPEG in a data URL, for the file's metadata."""
    from PIL import Image

    from ..pictures import to_image

    small = to_image(picture)
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def write_card(path: Path, adapter: SparseAdapter, picture: Tensor | None) -> None:
    """Write the files beside `path`, which is the adapter's file. Raises FileFormatError where they cannot be written."""
    from ..pictures import save_image, to_image

    shown = path.with_name(f"{path.stem}.preview.png")
    if picture is not None:
        save_image(to_image(picture), shown)
    card = description(path, adapter, shown if picture is not None else None)
    write_atomically(path.with_name(f"{path.stem}.metadata.json"), json.dumps(card, indent=2, ensure_ascii=False).encode())


def description(path: Path, adapter: SparseAdapter, picture: Path | None) -> dict[str, Any]:
    """The fields that ComfyUI-Lora-Manager wants of every file, and the words that it shows."""
    family = str(adapter.metadata.get("base_family", ""))
    return {
        "file_name": path.stem,
        "model_name": str(adapter.metadata.get("title", path.stem)),
        "file_path": path.absolute().as_posix(),
        "size": path.stat().st_size,
        "modified": path.stat().st_mtime,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "base_model": BASES.get(family, family or "Unknown"),
        "preview_url": picture.absolute().as_posix() if picture else "",
        "from_civitai": False,  # or the manager would ask there for it
        "civitai": {"trainedWords": adapter.trigger_words},
        "tags": ["sparse dictionary"],
        "modelDescription": "",
        "usage_tips": "{}",
    }
