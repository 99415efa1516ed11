"""What a model's encoders have made is kept, by content and model: in memory, and as files where later runs find them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor, cat

from ...sparsedict_core.atomic_write import write_atomically
from ...sparsedict_core.errors import FileFormatError
from .. import samples_cache

Row = dict[str, Tensor]
#: Of a large file this much at each of some places tells it from others.
PIECE, PIECES = 1 << 16, 16


class Encodings:
    """Rows by what was encoded. Without `folder` or `model` they are kept in memory alone."""

    def __init__(self, model: str | None = None) -> None:
        """`model` identifies the encoders; None where that is not known."""
        self.model = model
        self.folder: Path | None = None
        self._rows: dict[str, Row] = {}

    def rows(self, kind: str, contents: list[bytes], make: Callable[[list[int]], Row], remember: bool = True) -> Row:
        """One row for each of `contents`: those that are not known yet by `make(their places)`, which gives tensors with a row each."""
        keys = [hashlib.sha256(f"{self.model}|{kind}|".encode() + content).hexdigest()[:24] for content in contents]
        found = {key: row for key in dict.fromkeys(keys) if (row := self._find(key)) is not None}
        missing = [place for place, key in enumerate(keys) if key not in found and key not in keys[:place]]
        if missing:
            made = {name: value.detach().cpu() for name, value in make(missing).items()}
            for number, place in enumerate(missing):
                found[keys[place]] = {name: value[number : number + 1].clone() for name, value in made.items()}
                self._write(keys[place], found[keys[place]])
        if remember:
            self._rows |= found
        return {name: cat([found[key][name] for key in keys]) for name in found[keys[0]]}

    def _path(self, key: str) -> Path | None:
        return self.folder / f"encoded-{key}.safetensors" if self.folder is not None and self.model is not None else None

    def _find(self, key: str) -> Row | None:
        path = self._path(key)
        if key in self._rows or path is None or not path.exists():
            return self._rows.get(key)
        try:
            row = from_bytes(path.read_bytes())
        except (SafetensorError, OSError):
            return None  # damaged: made anew
        samples_cache.used(path)
        return row

    def _write(self, key: str, row: Row) -> None:
        path = self._path(key)
        if path is not None:
            with contextlib.suppress(FileFormatError):  # a full disk costs a later run its time, not this one
                write_atomically(path, to_bytes({name: value.contiguous() for name, value in row.items()}))


def identity_of(folders: Iterable[Path], *more: str) -> str:
    """Tells encoders apart by the files in their folders without reading large ones in full."""
    digest = hashlib.sha256("|".join(more).encode())
    for file in sorted(path for folder in folders for path in folder.rglob("*") if path.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.parent.name}/{file.name}:{size}".encode())
        with file.open("rb") as stream:
            for start in range(0, size, max(PIECE, size // PIECES)):
                stream.seek(start)
                digest.update(stream.read(PIECE))
    return digest.hexdigest()
