"""A `.safetensors` file as bytes: its header is checked before anything in it is believed, its tensors are read into memory.

Knows what safetensors is and nothing of adapters. The library maps the file, and a mapped file that is cut or written to while it is in
use ends the process or changes weights; and it parses a header before one can ask how large it is.
"""

from __future__ import annotations

import errno
import gc
import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from .bounds import LONGEST_FIELD, MOST_FIELDS, most_header
from .errors import FileFormatError
from .regular_file import open_regular
from .shown_text import shown

#: What can be read, in the format's own words.
STORED = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "I32": torch.int32}
_SIZES = {name: dtype.itemsize for name, dtype in STORED.items()} | {"F64": 8, "I64": 8, "U64": 8, "U32": 4, "I16": 2, "U16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1}
_DIMENSIONS = 8
_PIECE, _SMALL = 1 << 20, 1 << 14  # numbers that are looked at at once, and of a tensor that is looked at with others
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class Entry(NamedTuple):
    """One tensor of the header: the first and the last byte of its data, as offsets into the data."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class Container:
    """An open file whose header is sound: `fields` are its texts, `entries` its tensors by name, in the order of their data."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path, self._stream = path, stream
        size = os.fstat(stream.fileno()).st_size
        header = self._header(size)
        self.file_size, self.size = size, size - stream.tell()  # bytes of the file, and of its tensors
        self.fields = self._texts(header.pop("__metadata__", {}))
        self.entries = self._checked(header)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, in memory of their own. Raises FileFormatError where one has values that are not finite, or a dtype that nobody here reads."""
        for name, entry in self.entries.items():
            if entry.dtype not in STORED:
                raise FileFormatError(f"{self.path}: {shown(name)} is stored as {shown(entry.dtype, 40)}; it must be fp16, bf16, fp32 or int32.")
        try:
            data = bytearray(self.size)
        except (MemoryError, OverflowError) as error:
            raise FileFormatError(f"{self.path}: there is no memory for its {self.size:,} bytes; close other programs.") from error
        view, done = memoryview(data), 0
        while done < self.size:
            read = self._stream.readinto(view[done:])  # type: ignore[attr-defined]
            if not read:
                raise FileFormatError(f"{self.path} became shorter while it was read; wait until it is written, or copy it again.")
            done += read
        found = {name: _tensor(data, e.start, e.end, STORED[e.dtype]) for name, e in self.entries.items()}
        if not _all_finite(found.values()):
            name = next(name for name, tensor in found.items() if not _all_finite([tensor]))
            raise FileFormatError(f"{self.path}: {shown(name)} has values that are not finite; the file is damaged.")
        return {name: found[name] if len(e.shape) == 1 else found[name].view(e.shape) for name, e in self.entries.items()}

    # -- the header -----------------------------------------------------------------------------------------

    def _header(self, size: int) -> dict[str, Any]:
        path = self.path
        head = self._stream.read(16)
        if not head:
            raise FileFormatError(f"{path} is empty; it was not written to its end, make or download it again.")
        # The first eight bytes of a sound file are a length, which may look like anything.
        if head[8:9] != b"{":
            if head[:2] in _PICKLES:
                raise FileFormatError(f"{path} is a pickle, which may run code when opened; only .safetensors files are read.")
            if head[:4] == b"PK\x03\x04":
                raise FileFormatError(f"{path} is a zip or pickle (.pt, .ckpt); only .safetensors files are read.")
            raise FileFormatError(f"{path} is not a safetensors file; copy or download it again, or give another.")
        length = int.from_bytes(head[:8], "little")
        if 8 + length > size:
            raise FileFormatError(f"{path} is truncated at {size:,} bytes, within its header; copy or download it again.")
        if length > most_header(size):
            raise FileFormatError(
                f"{path} has a header of {length:,} bytes, in a file of this size at most {most_header(size):,} are read; it is no adapter, or was changed."
            )
        self._stream.seek(8)
        try:
            header = json.loads(self._stream.read(length).decode(), object_pairs_hook=_without_doubles)
            if not isinstance(header, dict):
                raise ValueError("it is no object")
        except (ValueError, RecursionError) as error:
            raise FileFormatError(f"{path} is not a safetensors file, its header cannot be read ({error}); copy or download it again.") from error
        return header

    def _texts(self, fields: Any) -> dict[str, str]:
        if not isinstance(fields, dict) or len(fields) > MOST_FIELDS:
            raise FileFormatError(f"{self.path}: its metadata is no object of at most {MOST_FIELDS} texts; the file was changed.")
        for name, text in fields.items():
            if not isinstance(text, str):
                raise FileFormatError(f"{self.path}: metadata field {shown(name)} is {shown(json.dumps(text), 40)}, it must be text; the file was changed.")
            if len(text) > LONGEST_FIELD:
                raise FileFormatError(
                    f"{self.path}: metadata field {shown(name)} has {len(text):,} characters, at most {LONGEST_FIELD:,} are read; the file was changed."
                )
            try:
                (name + text).encode()
            except UnicodeEncodeError:
                raise FileFormatError(f"{self.path}: metadata field {shown(name)} holds half a character; the file was changed.") from None
        return fields

    def _checked(self, header: dict[str, Any]) -> dict[str, Entry]:
        """The tensors in the order of their data, which they must fill without a gap."""
        entries = {name: self._entry(name, value) for name, value in header.items()}
        entries = dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)))
        at = 0
        for name, entry in entries.items():
            if entry.start != at:
                raise FileFormatError(f"{self.path}: the data of {shown(name)} begin at byte {entry.start}, expected {at}; the file was changed.")
            at = entry.end
        if at > self.size:
            raise FileFormatError(f"{self.path} is truncated: {at - self.size:,} bytes of its tensors are missing; copy or download it again.")
        if at < self.size:
            raise FileFormatError(f"{self.path} goes on for {self.size - at:,} bytes after its last tensor; the file was changed.")
        return entries

    def _entry(self, name: str, value: Any) -> Entry:
        try:
            dtype, shape, (start, end) = value["dtype"], value["shape"], value["data_offsets"]
            numbers = (*shape, start, end) if len(shape) <= _DIMENSIONS else ()
            if len(value) != 3 or {*map(type, numbers)} != {int} or min(numbers) < 0 or max(numbers) >= 1 << 62:
                raise ValueError("it has other fields than dtype, shape and data_offsets, or other values in them")
            size = _SIZES.get(dtype)
            if end < start or (size is not None and end - start != math.prod(shape) * size):
                raise ValueError(f"its data have {end - start} bytes, other than its shape says")
            return Entry(str(dtype), tuple(shape), start, end)
        except (TypeError, KeyError, ValueError) as error:
            raise FileFormatError(f"{self.path}: the entry of {shown(name)} in its header is damaged ({error}); the file was changed.") from error


@contextmanager
def without_collections() -> Iterator[None]:
    """The collector of reference cycles rests: it would go through all objects of the process again and again while those of a file are
    made, which are many and have no cycles."""
    rests = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if rests:
            gc.enable()


@contextmanager
def open_container(path: Path) -> Iterator[Container]:
    """The file with its header read. Raises FileFormatError for whatever is no sound safetensors file."""
    try:
        descriptor = open_regular(path)
    except (OSError, ValueError) as error:
        raise FileFormatError(unusable(path, error)) from error
    try:
        with open(descriptor, "rb") as stream:
            yield Container(path, stream)
    except OSError as error:
        raise FileFormatError(unusable(path, error)) from error


def unusable(path: Path, error: OSError | ValueError) -> str:
    """One sentence for a name that the system does not take, or a file that it does not give."""
    if not isinstance(error, OSError):
        return f"{path} is no name that a file can have: it holds a zero byte or half a character; choose another."
    if error.errno == errno.EISDIR:
        return f"{path} is a folder; give the .safetensors file in it."
    if error.errno == errno.EINVAL:
        return f"{path} cannot be read: {error.strerror}; give a regular file."
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"{path} does not exist; check the path."
    if error.errno == errno.ENAMETOOLONG:
        return f"{shown(path, 80)} is longer than the system lets a name be; choose a shorter one."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{path} may not be read, the file or a folder above it is not yours to read; change its rights, or copy it."
    return f"{path} cannot be read: {error.strerror or error}."


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether flat tensors are; small ones together, as thousands of small tensors would be thousands of small looks."""
    small: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        if not tensor.is_floating_point():
            continue
        if tensor.numel() < _SMALL:
            small.setdefault(tensor.dtype, []).append(tensor)
        elif not all(bool(torch.isfinite(piece).all()) for piece in tensor.split(_PIECE)):
            return False
    return all(bool(torch.isfinite(torch.cat(alike)).all()) for alike in small.values())


def _tensor(data: bytearray, start: int, end: int, dtype: torch.dtype) -> Tensor:
    """Flat, without a copy where the data are aligned."""
    if start == end:
        return torch.empty(0, dtype=dtype)
    if start % dtype.itemsize == 0:
        return torch.frombuffer(data, dtype=dtype, count=(end - start) // dtype.itemsize, offset=start)
    return torch.frombuffer(data, dtype=torch.uint8, count=end - start, offset=start).clone().view(dtype)
