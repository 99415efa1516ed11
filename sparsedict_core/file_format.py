"""An adapter as one `.safetensors` file: saving, loading, reading only what it says about itself.

Knows the keys, their shapes and dtypes; `file_metadata` knows the text fields, `atomic_write` how a file gets in place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from .adapter import SparseAdapter
from .atomic_write import write_atomically
from .config import MOST_ATOMS
from .errors import FileFormatError
from .file_metadata import FileMetadata, SiteEntry, decode_metadata, encode_metadata
from .functional import dense_is_smaller
from .site import SparseSite, site_key

#: What an adapter can be saved as. A file may hold its tensors in these and no others.
DTYPES: dict[str, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}

# The same in the file's own words.
_STORED = ("F16", "BF16", "F32")

# Small, and ranks or linear systems are computed from them, so rounding is not worth the bytes.
_FULL_PRECISION = ("importance", "encoder.threshold", "firing", "moments")
_REQUIRED = (
    "encoder.weight",
    "encoder.bias",
    "encoder.threshold",
    "dictionary.weight",
    "importance",
    "atom_ids",
)
_OPTIONAL = ("encoder.basis", "encoder.mean", "encoder.scale", "dictionary.basis", "firing", "moments")


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
        return f"{self.path}: {self.atoms} atoms at {len(self.forms)} sites ({forms}), {self.bytes:,} bytes{moments}"


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
    if dtype not in DTYPES.values():
        raise FileFormatError(f"{path}: an adapter cannot be saved as {dtype}; choose fp16, bf16 or fp32.")
    if path.suffix.lower() != ".safetensors":
        raise FileFormatError(f"{path}: an adapter's file name must end in .safetensors.")
    if path.exists() and not overwrite:
        raise FileFormatError(f"{path} exists already; choose another name, or allow it to be overwritten.")
    tensors: dict[str, Tensor] = {}
    forms: dict[str, str] = {}
    for key, site in adapter.sites.items():
        stored = site
        if _would_fold(site):
            stored = site.clone()
            stored.compact()
        forms[key] = stored.form
        for name, tensor in site_tensors(stored):
            if name != "moments" or moments:
                tensors[f"{key}.{name}"] = _stored(path, f"{key}.{name}", tensor, _stored_dtype(name, dtype))
    data = _with_sorted_header(serialise(tensors, metadata=encode_metadata(adapter)))
    write_atomically(path, data)
    moments_bytes = sum(t.numel() * t.element_size() for name, t in tensors.items() if name.endswith(".moments"))
    return SaveReport(path, len(data), moments_bytes, adapter.atom_count, dtype, forms)


def load(path: str | Path, dtype: torch.dtype | None = None) -> SparseAdapter:
    """Read an adapter, memory-mapped, without gradients; in the file's dtype unless another is asked for.

    Raises FileFormatError naming the file, and the key where one is wrong.
    """
    path = Path(path)
    with _open(path) as file:
        meta = decode_metadata(path, file.metadata())
        keys = set(file.keys())
        sites = [_load_site(path, file, keys, entry, meta, dtype) for entry in meta.sites]
        if keys:
            extra = sorted(keys)
            raise FileFormatError(
                f"{path}: tensor {extra[0]} belongs to no site ({len(extra)} such); the file is not a sparse dictionary "
                "of this version, or was changed."
            )
    adapter = SparseAdapter(sites, meta.config, meta.component, meta.values, meta.members)
    return adapter.requires_grad_(False)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What the file says about itself, without its tensors: encoder, sites, base, members, trigger words, training.

    Raises FileFormatError as `load` does.
    """
    path = Path(path)
    with _open(path) as file:
        return decode_metadata(path, file.metadata()).to_dict()


def site_tensors(site: SparseSite) -> Iterator[tuple[str, Tensor]]:
    """The site's tensors under their names in the file; what is the identity or absent is left out."""
    names = {
        "encoder.weight": site.encoder_weight,
        "encoder.basis": site.encoder_basis,
        "encoder.bias": site.encoder_bias,
        "encoder.mean": site.encoder_mean if site.standardised else None,
        "encoder.scale": site.encoder_scale if site.standardised else None,
        "encoder.threshold": site.threshold,
        "dictionary.weight": site.dictionary_weight,
        "dictionary.basis": site.dictionary_basis,
        "importance": site.importance,
        "atom_ids": site.atom_ids,
        "firing": site.firing,
        "moments": site.moments,
    }
    for name, tensor in names.items():
        if tensor is not None:
            yield name, tensor.detach()


def _with_sorted_header(data: bytes) -> bytes:
    """The same file with its text fields in order: safetensors writes them in a random one, and equal adapters shall
    give equal bytes."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _would_fold(site: SparseSite) -> bool:
    """Whether a basis would be multiplied in at saving; a site that is in its smaller form is stored as it is."""
    bases = [basis for basis in (site.encoder_basis, site.dictionary_basis) if basis is not None]
    return any(dense_is_smaller(site.atoms, *basis.shape) for basis in bases)


def _stored_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    if name == "atom_ids":
        return torch.int32
    return torch.float32 if name in _FULL_PRECISION else dtype


def _stored(path: Path, key: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    stored = tensor.cpu().to(dtype).contiguous()
    if dtype.is_floating_point and not bool(torch.isfinite(stored).all()):
        if bool(torch.isfinite(tensor).all()):
            raise FileFormatError(f"{path}: {key} has values too large for {dtype}; save as bf16 or fp32.")
        raise FileFormatError(f"{path}: {key} has values that are not finite; the training run went wrong, nothing is saved.")
    if key.endswith(".encoder.scale") and not bool((stored > 0).all()):
        raise FileFormatError(f"{path}: {key} has values too small for {dtype}; save as bf16 or fp32.")
    if stored.data_ptr() == tensor.data_ptr():
        # safetensors refuses tensors that share memory, as views of one parameter do.
        stored = stored.clone()
    return stored


def _open(path: Path) -> Any:
    """`safe_open`, with errors that say what is wrong with the file."""
    if not path.exists():
        raise FileFormatError(f"{path} does not exist; check the path.")
    if path.is_dir():
        raise FileFormatError(f"{path} is a folder; give the .safetensors file in it.")
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not head:
        raise FileFormatError(f"{path} is empty; it was not written to its end, make or download it again.")
    # The first eight bytes of a sound file are a length, which may look like anything.
    sound = head[8:9] == b"{"
    if not sound and head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise FileFormatError(f"{path} is a pickle, which may run code when opened; only .safetensors files are read.")
    if not sound and head[:4] == b"PK\x03\x04":
        raise FileFormatError(f"{path} is a zip or pickle (.pt, .ckpt); only .safetensors files are read.")
    try:
        return safe_open(str(path), framework="pt", device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        size = path.stat().st_size
        length = int.from_bytes(head[:8], "little")
        if sound and (length + 8 > size or "Incomplete" in str(error) or "not fully covered" in str(error)):
            raise FileFormatError(f"{path} is truncated at {size:,} bytes; copy or download it again.") from error
        raise FileFormatError(f"{path} is not a safetensors file; give a file that SparseDict has written.") from error


def _load_site(path: Path, file: Any, keys: set[str], entry: SiteEntry, meta: FileMetadata, dtype: torch.dtype | None) -> SparseSite:
    """One site; takes its keys out of `keys`."""
    key = site_key(entry.name.place, entry.member)
    prefix = f"{key}."
    found: dict[str, Tensor] = {}
    for name in (*_REQUIRED, *_OPTIONAL):
        if prefix + name in keys:
            keys.discard(prefix + name)
            kind = file.get_slice(prefix + name).get_dtype()
            if kind not in (("I32",) if name == "atom_ids" else _STORED):
                wanted = "int32" if name == "atom_ids" else "fp16, bf16 or fp32"
                raise FileFormatError(f"{path}: {prefix}{name} is stored as {kind}; it must be {wanted}.")
            found[name] = file.get_tensor(prefix + name)
        elif name in _REQUIRED:
            raise FileFormatError(f"{path}: tensor {prefix}{name} is missing; the file was changed or cut.")
    _check_shapes(path, prefix, found, entry)
    for name, tensor in found.items():
        if name == "atom_ids":
            continue
        if not bool(torch.isfinite(tensor).all()):
            raise FileFormatError(f"{path}: {prefix}{name} has values that are not finite; the file is damaged.")
        if dtype is not None and name not in _FULL_PRECISION:
            found[name] = tensor.to(dtype)
    return SparseSite(
        entry.name,
        meta.encoder_of(entry),
        encoder_weight=found["encoder.weight"],
        encoder_basis=found.get("encoder.basis"),
        encoder_bias=found["encoder.bias"],
        dictionary_weight=found["dictionary.weight"],
        dictionary_basis=found.get("dictionary.basis"),
        encoder_mean=found.get("encoder.mean"),
        encoder_scale=found.get("encoder.scale"),
        threshold=found["encoder.threshold"],
        importance=found["importance"],
        atom_ids=found["atom_ids"],
        firing=found.get("firing"),
        moments=found.get("moments"),
        member=entry.member,
    )


def _check_shapes(path: Path, prefix: str, found: dict[str, Tensor], entry: SiteEntry) -> None:
    atoms = found["encoder.weight"].shape[0] if found["encoder.weight"].ndim else 0

    def rank(basis: str) -> int | None:
        # No basis is of rank 0: a shape without it is wrong.
        return max(1, found[basis].shape[0]) if basis in found and found[basis].ndim else None

    r_in, r_out = rank("encoder.basis"), rank("dictionary.basis")
    expected: dict[str, tuple[int, ...]] = {
        "encoder.weight": (atoms, entry.d_in if r_in is None else r_in),
        "encoder.basis": (r_in or 0, entry.d_in),
        "encoder.bias": (atoms,),
        "encoder.mean": (entry.d_in,),
        "encoder.scale": (entry.d_in,),
        # Asked for no atoms, as their number may be anything yet.
        "encoder.threshold": (),
        "dictionary.weight": (atoms, entry.d_out if r_out is None else r_out),
        "dictionary.basis": (r_out or 0, entry.d_out),
        "importance": (atoms,),
        "atom_ids": (atoms,),
        "firing": (atoms,),
        "moments": (atoms, atoms),
    }
    for name, tensor in found.items():
        if tuple(tensor.shape) != expected[name]:
            raise FileFormatError(
                f"{path}: {prefix}{name} has shape {tuple(tensor.shape)}, expected {expected[name]}; the file was changed."
            )
    if ("encoder.mean" in found) != ("encoder.scale" in found):
        raise FileFormatError(f"{path}: {prefix}encoder has only one of mean and scale; both or neither must be there.")
    if "encoder.scale" in found and not bool((found["encoder.scale"] > 0).all()):
        raise FileFormatError(f"{path}: {prefix}encoder.scale has values of 0 or less; the file is damaged.")
    if not bool((found["importance"] >= 0).all()):
        raise FileFormatError(f"{path}: {prefix}importance has values below 0; the file is damaged.")
    if "firing" in found and not bool(((found["firing"] >= 0) & (found["firing"] <= 1)).all()):
        raise FileFormatError(f"{path}: {prefix}firing has values that are no shares from 0 to 1; the file is damaged.")
    if "moments" in found and not bool((found["moments"].diagonal() >= 0).all()):
        raise FileFormatError(f"{path}: {prefix}moments has mean squares below 0; the file is damaged.")
    ids = found["atom_ids"]
    if len(ids.unique()) != len(ids) or not bool(((ids >= 0) & (ids < MOST_ATOMS)).all()):
        raise FileFormatError(f"{path}: {prefix}atom_ids must be different numbers from 0 to {MOST_ATOMS - 1:,}; the file was changed.")
