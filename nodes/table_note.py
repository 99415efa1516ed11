"""A dictionary's atoms as a file for the front end, where they come from a run and not from a file of the host's folders."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import folder_paths

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.atom_table import atom_table


def table_note(name: str, adapter: SparseAdapter, greedy: bool = False, **more: Any) -> dict[str, str]:
    """Writes the table, and `more`, into the host's temp folder, as the front end asks for the whole history after each run. Returns the
    file as the host names files."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}_{uuid.uuid4().hex}.json"
    path.write_text(json.dumps({**atom_table(adapter, greedy), **more}, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    return {"filename": path.name, "subfolder": "", "type": "temp"}
