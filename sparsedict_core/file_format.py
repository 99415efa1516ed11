"""An adapter as one `.safetensors` file: saving, loading, reading only what it says about itself.

Knows the keys, their shapes and dtypes; `file_metadata` knows the text fields, `atomic_write` how a file gets in place.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialise
from torch import Tensor

from .adapter import SparseAdapter
from .atomic_write import write_atomically
from .bounds import most_atoms
from .errors import FileFormatError
from .file_container import STORED, Container, Entry, open_container, unusable, without_collections
from .file_metadata import FileMetadata, SiteEntry, decode_metadata, encode_metadata
from .functional import dense_is_smaller
from .shown_text import escaped, shown
from .site import SparseSite
from .tensor_table import TABLE, Row, shape_of, site_sizes, site_tensors

#: What an adapter can be saved as.
DTYPES: dict[str, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
#: Before the names of tensors that are no site's (`SparseAdapter.aside`).
ASIDE = "aside."
#: ModelSpec's field for the hash of the tensors.
HASH = "modelspec.hash_sha256"


@dataclass(frozen=True)
class SaveReport:
    """What was written. `forms` by site key: dense, factored, or both named."""

    path: Path
    bytes: int
    moments_bytes: int
    atoms: int
    dtype: torch.dtype
    forms: dict[str, str]

    @property
    def text(self) -> str:
        """One line for people."""
        counts = {form: list(self.forms.values()).count(form) for form in dict.fromkeys(self.forms.values())}
        forms = ", ".join(f"{count} {form}" for form, count in counts.items())
        moments = f", {self.moments_bytes:,} of them moments" if self.moments_bytes else ""
        return f"{escaped(str(self.path))}: {self.atoms} atoms at {len(self.forms)} sites ({forms}), {self.bytes:,} bytes{moments}"


def save(
    adapter: SparseAdapter,
    path: str | Path,
    dtype: torch.dtype = torch.float16,
    overwrite: bool = False,
    moments: bool = True,
) -> SaveReport:
    """Write the adapter, each site in the smaller of its two forms. The file appears whole or not at all.

    `moments` keeps E[CᵀC] (float32, 4·m² bytes a site) where the adapter has it; greedy order and refit need it later.
    Raises FileFormatError if the file exists and may not be overwritten, cannot be written, or a value does not fit `dtype`.
    """
    path = Path(path)
    check_target(path, dtype, overwrite)
    data, report = _serialised(adapter, path, dtype, moments)
    write_atomically(path, data)
    return report


def stored_size(adapter: SparseAdapter, dtype: torch.dtype = torch.float16, moments: bool = True) -> int:
    """Bytes of the file that `save` would write; nothing is written."""
    return _serialised(adapter, Path("adapter.safetensors"), dtype, moments)[1].bytes


def _serialised(adapter: SparseAdapter, path: Path, dtype: torch.dtype, moments: bool) -> tuple[bytes, SaveReport]:
    tensors: dict[str, Tensor] = {}
    forms: dict[str, str] = {}
    for key, site in adapter.sites.items():
        stored = site
        if _would_fold(site):
            stored = site.clone()
            stored.compact()
        forms[key] = stored.form
        for row, tensor in site_tensors(stored):
            if row.name != "moments" or moments:
                tensors[f"{key}.{row.name}"] = stored_tensor(path, f"{key}.{row.name}", row, tensor, row.dtype or dtype)
    tensors |= {ASIDE + name: tensor.contiguous() for name, tensor in adapter.aside.items()}
    fields = encode_metadata(adapter)
    data = _with_sorted_header(serialise(tensors, metadata=fields))
    decode_metadata(path, fields, len(data))  # what could not be read again is not written
    check_atoms(path, adapter.atom_count, len(data))
    moments_bytes = sum(t.numel() * t.element_size() for name, t in tensors.items() if name.endswith(".moments"))
    return data, SaveReport(path, len(data), moments_bytes, adapter.atom_count, dtype, forms)


def check_target(path: Path, dtype: torch.dtype, overwrite: bool) -> None:
    """Raises FileFormatError for a dtype, a name or a place that no adapter can be saved as."""
    if dtype not in DTYPES.values():
        raise FileFormatError(f"{path}: an adapter cannot be saved as {dtype}; choose fp16, bf16 or fp32.")
    if path.suffix.lower() != ".safetensors":
        raise FileFormatError(f"{path}: an adapter's file name must end in .safetensors.")
    if _exists(path) and not overwrite:
        raise FileFormatError(f"{path} exists already; choose another name, or allow it to be overwritten.")


def load(path: str | Path, dtype: torch.dtype | None = None) -> SparseAdapter:
    """Read an adapter into memory, without gradients; in the file's dtype unless another is asked for.

    Raises FileFormatError naming the file, and the key where one is wrong.
    """
    return load_with_metadata(path, dtype)[0]


def load_with_metadata(path: str | Path, dtype: torch.dtype | None = None) -> tuple[SparseAdapter, dict[str, Any]]:
    """`load` and `read_metadata` of one moment."""
    path = Path(path)
    with without_collections(), open_container(path) as file:
        meta = decode_metadata(path, file.fields, file.file_size)
        stored = _stored_names(file, meta)
        tensors = file.tensors()
        found = [{row.name: tensors.pop(name) for row, name in names} for names in stored]
        _check_values(path, meta.sites, found)
        sites = [_site(entry, meta, values, dtype) for entry, values in zip(meta.sites, found, strict=True)]
        adapter = SparseAdapter(sites, meta.config, meta.component, meta.values, meta.members).requires_grad_(False)
    adapter.aside = {name.removeprefix(ASIDE): tensor for name, tensor in tensors.items()}
    return adapter, meta.to_dict()


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What the file says about itself, without its tensors: encoder, sites, base, members, trigger words, training.

    Raises FileFormatError as `load` does.
    """
    path = Path(path)
    with without_collections(), open_container(path) as file:
        return decode_metadata(path, file.fields, file.file_size).to_dict()


def _with_sorted_header(data: bytes) -> bytes:
    """The same file with its text fields in order, and with the hash of its tensors among them: safetensors writes them in a
    random order, and equal adapters shall give equal bytes."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"][HASH] = hash_of([memoryview(data)[8 + length :]])
    return header_bytes(header) + data[8 + length :]


def hash_of(tensors: Iterable[bytes | memoryview]) -> str:
    """As ModelSpec wants it: of the tensors' bytes, in the file's order."""
    digest = hashlib.sha256()
    for part in tensors:
        digest.update(part)
    return "0x" + digest.hexdigest()


def header_bytes(header: dict[str, Any]) -> bytes:
    """The beginning of a file, up to its tensors."""
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _would_fold(site: SparseSite) -> bool:
    """Whether a basis would be multiplied in at saving; a site that is in its smaller form is stored as it is."""
    bases = [basis for basis in (site.encoder_basis, site.dictionary_basis) if basis is not None]
    return any(dense_is_smaller(site.atoms, *basis.shape) for basis in bases)


def stored_tensor(path: Path, key: str, row: Row, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """As it stands in the file. Raises FileFormatError for values that must not, or cannot be there."""
    stored = tensor.cpu().to(dtype).contiguous()
    if dtype.is_floating_point and not bool(torch.isfinite(stored).all()):
        if bool(torch.isfinite(tensor).all()):
            raise FileFormatError(f"{path}: {key} has values too large for {dtype}; save as bf16 or fp32.")
        raise FileFormatError(f"{path}: {key} has values that are not finite; the training run went wrong, nothing is saved.")
    if row.sound is not None and not bool(row.sound(stored).all()):
        raise FileFormatError(f"{path}: {key} has {row.otherwise}; nothing is saved.")
    if stored.data_ptr() == tensor.data_ptr():
        # safetensors refuses tensors that share memory, as views of one parameter do.
        stored = stored.clone()
    return stored


def _exists(path: Path) -> bool:
    try:
        os.stat(path)
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise FileFormatError(unusable(path, error)) from error


# -- checking ---------------------------------------------------------------------------------------------------


def _stored_names(file: Container, meta: FileMetadata) -> list[list[tuple[Row, str]]]:
    """For each site its rows of the table with the tensors' names in the file: all that can be said before the data are read.

    Raises FileFormatError for a tensor that is missing, of no site, or of another dtype or shape.
    """
    left, stored, atoms = dict(file.entries), [], 0
    for entry in meta.sites:
        here: dict[Row, Entry] = {}
        prefix = f"{entry.key}."
        for row in TABLE:
            if (found := left.pop(prefix + row.name, None)) is not None:
                here[row] = found
            elif not row.optional:
                raise FileFormatError(f"{file.path}: tensor {shown(prefix + row.name)} is missing; the file was changed or cut.")
        atoms += _check_shapes(file.path, entry, here, meta.version)
        stored.append([(row, prefix + row.name) for row in here])
    check_atoms(file.path, atoms, file.file_size)
    foreign = [name for name in left if not name.startswith(ASIDE)]
    if foreign:
        raise FileFormatError(
            f"{file.path}: tensor {shown(foreign[0])} belongs to no site ({len(foreign)} such); the file is not a sparse dictionary "
            "of this version, or was changed."
        )
    return stored


def _check_shapes(path: Path, entry: SiteEntry, here: Mapping[Row, Entry], version: int) -> int:
    """Returns how many atoms the site has."""
    sizes = site_sizes(entry.d_in, entry.d_out, {row.name: found.shape for row, found in here.items()})
    for row, found in here.items():
        # Version 1 kept the statistics in the file's own dtype, too.
        loose = row.dtype is None or (version == 1 and row.dtype.is_floating_point)
        kinds = DTYPES.values() if loose else (row.dtype,)
        if STORED.get(found.dtype) not in kinds:
            wanted = "fp16, bf16 or fp32" if loose else "int32" if row.dtype == torch.int32 else "fp32"
            raise FileFormatError(f"{path}: {shown(entry.key)}.{row.name} is stored as {shown(found.dtype, 40)}; it must be {wanted}.")
        if found.shape != shape_of(row, sizes):
            raise FileFormatError(f"{path}: {shown(entry.key)}.{row.name} has shape {found.shape}, expected {shape_of(row, sizes)}; the file was changed.")
    names = {row.name for row in here}
    if ("encoder.mean" in names) != ("encoder.scale" in names):
        raise FileFormatError(f"{path}: {shown(entry.key)}.encoder has only one of mean and scale; both or neither must be there.")
    return sizes["atoms"]


def check_atoms(path: Path, atoms: int, size: int) -> None:
    if atoms > most_atoms(size):
        raise FileFormatError(f"{path}: {atoms:,} atoms are more than a file of {size:,} bytes may have ({most_atoms(size):,}); it is no adapter, or was changed.")


def _check_values(path: Path, sites: list[SiteEntry], found: list[dict[str, Tensor]]) -> None:
    """Raises FileFormatError where a tensor has values that it may not have. Each row is looked at in all sites at once."""
    for row in TABLE:
        if row.sound is None:
            continue
        tensors = [values[row.name] for values in found if row.name in values]
        if not tensors or bool(row.sound(torch.cat(tensors)).all()):
            continue
        entry = next(e for e, values in zip(sites, found, strict=True) if row.name in values and not bool(row.sound(values[row.name]).all()))
        raise FileFormatError(f"{path}: {shown(entry.key)}.{row.name} has {row.otherwise}; the file is damaged.")
    for entry, values in zip(sites, found, strict=True):
        ids = values["atom_ids"].tolist()
        if len(set(ids)) != len(ids):
            raise FileFormatError(f"{path}: {shown(entry.key)}.atom_ids has an id twice; the file was changed.")
        if "moments" in values and not _are_moments(values["moments"]):
            raise FileFormatError(f"{path}: {shown(entry.key)}.moments are no mean products of any numbers; the file is damaged.")


def _are_moments(moments: Tensor) -> bool:
    """Whether E[CᵀC] may be so: symmetric, and no mean product larger than the two mean squares allow."""
    squares = moments.diagonal()
    if not bool((squares >= 0).all()):
        return False
    roots, slack = squares.sqrt(), 1e-3 * squares.max() if len(squares) else 0
    return bool(((moments - moments.T).abs() <= slack).all()) and bool((moments.abs() <= roots[:, None] * roots + slack).all())


def _site(entry: SiteEntry, meta: FileMetadata, values: dict[str, Tensor], dtype: torch.dtype | None) -> SparseSite:
    tensors = {}
    for row in TABLE:
        if row.name in values:
            wanted = row.dtype or dtype
            tensors[row.attribute] = values[row.name] if wanted is None else values[row.name].to(wanted)
    for side in ("encoder_basis", "dictionary_basis"):
        tensors.setdefault(side, None)
    return SparseSite(entry.name, meta.encoder_of(entry), member=entry.member, **tensors)
