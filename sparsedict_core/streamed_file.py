"""An adapter's file written site by site, for adapters whose sites are made one after the other: only one is ever in memory."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from .adapter import SparseAdapter
from .atomic_write import write_atomically
from .encoders.base import Encoder
from .errors import FileFormatError
from .file_format import ASIDE, HASH, SaveReport, check_atoms, check_target, hash_of, header_bytes, stored_tensor
from .file_metadata import decode_metadata, encode_metadata
from .site import SiteName, SparseSite
from .tensor_table import site_tensors

_CHUNK = 1 << 22  # bytes copied at once
_NAMES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.int32: "I32"}


def save_streamed(
    path: str | Path,
    sites: Iterable[SparseSite],
    finish: Callable[[list[SparseSite]], SparseAdapter],
    aside: Iterable[tuple[str, Tensor]] = (),
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
) -> SaveReport:
    """As `file_format.save`, for an adapter that `finish` makes of the sites without their tensors once these are written.

    The file appears whole or not at all; on the way the disk holds it twice. Raises FileFormatError as `save` does.
    """
    path = Path(path)
    check_target(path, dtype, overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Four-byte numbers first: then all begin at a multiple of their size, which some readers need.
        with tempfile.TemporaryFile(dir=path.parent) as wide, tempfile.TemporaryFile(dir=path.parent) as narrow:
            parts = {4: _Part(wide), 2: _Part(narrow)}
            written = []
            for site in sites:
                shapes = {}
                for row, tensor in site_tensors(site):
                    name = f"{site.key}.{row.name}"
                    stored = stored_tensor(path, name, row, tensor, row.dtype or dtype)
                    parts[stored.element_size()].add(name, stored)
                    shapes[row.attribute] = tuple(tensor.shape)
                written.append((site.name, site.encoder, site.member, shapes))
            for name, tensor in aside:
                parts[tensor.element_size()].add(ASIDE + name, tensor)
            # Not before: a small tensor that stays between large ones keeps the heap from giving their memory back.
            adapter = finish([_without_memory(*one) for one in written])
            fields = encode_metadata(adapter) | {HASH: hash_of(itertools.chain(parts[4].chunks(), parts[2].chunks()))}
            header: dict[str, Any] = {"__metadata__": fields, **parts[4].entries(0), **parts[2].entries(parts[4].size)}
            start = header_bytes(header)
            size = len(start) + parts[4].size + parts[2].size
            decode_metadata(path, fields, size)  # what could not be read again is not written
            check_atoms(path, adapter.atom_count, size)
            write_atomically(path, itertools.chain((start,), parts[4].chunks(), parts[2].chunks()))
    except OSError as error:
        raise FileFormatError(f"{path} was not saved: {error.strerror or error}; choose another place.") from error
    forms = {key: site.form for key, site in adapter.sites.items()}
    return SaveReport(path, size, 0, adapter.atom_count, dtype, forms)


def _without_memory(name: SiteName, encoder: Encoder, member: str | None, shapes: dict[str, tuple[int, ...]]) -> SparseSite:
    """A site of these shapes on the meta device."""
    bases = {"encoder_basis": None, "dictionary_basis": None}
    tensors = {attribute: torch.empty(shape, device="meta") for attribute, shape in shapes.items()}
    return SparseSite(name, encoder, member=member, **cast(Any, bases | tensors))


class _Part:
    """Tensors of one size of numbers, one after the other in a file without a name."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.size = stream, 0
        self._found: dict[str, tuple[str, list[int], int, int]] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        data = tensor.contiguous().flatten().view(torch.uint8).numpy()
        self._stream.write(data.data)
        self._found[name] = _NAMES[tensor.dtype], list(tensor.shape), self.size, self.size + data.nbytes
        self.size += data.nbytes

    def entries(self, offset: int) -> dict[str, Any]:
        return {name: {"dtype": kind, "shape": shape, "data_offsets": [offset + first, offset + last]} for name, (kind, shape, first, last) in self._found.items()}

    def chunks(self) -> Iterable[bytes]:
        self._stream.seek(0)
        return iter(lambda: self._stream.read(_CHUNK), b"")
