"""Files that are made to cost much more than they weigh, each a kind that once did; all are legal JSON, most are legal safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

CONFIG = {"encoder": "quantile", "atoms": 1, "rank": None, "density": 0.1, "encoder_settings": {}}
SIZES = {"F16": 2, "F32": 4, "I32": 4}


def written(tensors: dict[str, tuple[str, list[int], bytes]], fields: dict[str, Any]) -> bytes:
    """A file of tensors (dtype, shape, data) and fields; what is no text becomes JSON."""
    header: dict[str, Any] = {"__metadata__": {key: value if isinstance(value, str) else json.dumps(value) for key, value in fields.items()}}
    parts, at = [], 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
        parts.append(data)
    return with_header(json.dumps(header, separators=(",", ":")).encode(), b"".join(parts))


def with_header(header: bytes, data: bytes = b"") -> bytes:
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data


def site(key: str, atoms: int, d_in: int, d_out: int, rank: int | None = None, first_id: int = 0, **more: tuple[str, list[int], bytes]) -> dict[str, tuple[str, list[int], bytes]]:
    """The tensors of a site full of zeros; a basis on both sides where there is a rank."""

    def zeros(dtype: str, *shape: int) -> tuple[str, list[int], bytes]:
        count = 1
        for n in shape:
            count *= n
        return dtype, list(shape), bytes(count * SIZES[dtype])

    made = {
        "encoder.weight": zeros("F16", atoms, rank or d_in),
        "encoder.bias": zeros("F16", atoms),
        "dictionary.weight": zeros("F16", atoms, rank or d_out),
        "encoder.threshold": zeros("F32"),
        "importance": zeros("F32", atoms),
        "atom_ids": ("I32", [atoms], b"".join((first_id + i).to_bytes(4, "little") for i in range(atoms))),
        **more,
    }
    if rank is not None:
        made |= {"encoder.basis": zeros("F16", rank, d_in), "dictionary.basis": zeros("F16", rank, d_out)}
    return {f"{key}.{name}": value for name, value in made.items()}


def adapter_file(count: int, members: int = 0, fields: dict[str, Any] | None = None, d_in: int = 1, d_out: int = 1, **site_options: Any) -> bytes:
    """`count` sites alike, spread over `members`."""
    tensors, rows = {}, []
    for i in range(count):
        row: dict[str, Any] = {"path": f"b.{i}", "layer": i, "stream": None, "d_in": d_in, "d_out": d_out}
        if members:
            row["member"] = f"m{i % members}"
        rows.append(row)
        tensors |= site(f"m{i % members}:b.{i}" if members else f"b.{i}", d_in=d_in, d_out=d_out, **{"atoms": 1, **site_options})
    known: dict[str, Any] = {"format": "sparse_dict", "format_version": "2", "encoder": "quantile", "config": CONFIG, "component": "", "sites": rows}
    if members:
        known["members"] = [{"name": f"m{i}", "strength": 1.0, "config": CONFIG} for i in range(members)]
    return written(tensors, {**known, **(fields or {})})


_ITEMS = 300_000
CASES: dict[str, Callable[[], bytes]] = {
    "1,100 sites without atoms, as wide as may be": lambda: adapter_file(1100, atoms=0, d_in=1 << 20, d_out=1 << 20),
    "wider than may be": lambda: adapter_file(1, atoms=0, d_in=1 << 28),
    "4,000 sites, in 13 MB": lambda: adapter_file(4000, atoms=16, rank=16, d_in=30, d_out=30),
    "1,120 honest sites": lambda: adapter_file(1120, atoms=16, d_in=64, d_out=64, rank=4),
    "16,000 sites": lambda: adapter_file(16_000),
    "16,000 members": lambda: adapter_file(16_000, members=16_000),
    "256 members with 1,100 sites": lambda: adapter_file(1100, members=256),
    "one atom of the highest id in 60 sites": lambda: adapter_file(60, first_id=(1 << 20) - 1),
    "one atom of the highest id in 1,100 sites": lambda: adapter_file(1100, first_id=(1 << 20) - 1),
    "a million atoms": lambda: adapter_file(1, atoms=1 << 20),
    "60,000 atoms of rank 1, as wide as may be": lambda: adapter_file(1, atoms=60_000, d_in=1 << 20, d_out=1 << 20, rank=1),
    "moments of 2,000 atoms": lambda: adapter_file(1, atoms=2000, moments=("F32", [2000, 2000], bytes(2000 * 2000 * 4))),
    "28 MB of brackets in a field": lambda: adapter_file(1, fields={"note": "[" * 28_000_000}),
    "2 MB of brackets in a field": lambda: adapter_file(1, fields={"note": "[" * 1_000_000 + "]" * 1_000_000}),
    "1 MB of empty lists in a field": lambda: adapter_file(1, fields={"note": "[" + "[]," * 340_000 + "[]]"}),
    "2 MB of objects in a field": lambda: adapter_file(1, fields={"note": "{" + ",".join(f'"{i}":{{}}' for i in range(150_000)) + "}"}),
    "300,000 trigger words": lambda: adapter_file(1, fields={"trigger_words": ["ab"] * _ITEMS}),
    "300,000 steps of lineage": lambda: adapter_file(1, fields={"lineage": [{}] * _ITEMS}),
    "300,000 settings of a training": lambda: adapter_file(1, fields={"training": {str(i): 1 for i in range(100_000)}}),
    "a site table of empty objects": lambda: adapter_file(1, fields={"sites": "[" + "{}," * 600_000 + "{}]"}),
    "a config of 150,000 settings": lambda: adapter_file(1, fields={"config": {**CONFIG, "encoder_settings": {str(i): 1 for i in range(150_000)}}}),
    "a rank of 4,300 digits": lambda: adapter_file(1, fields={"config": json.dumps(CONFIG).replace("null", "1" + "0" * 4299)}),
    "400 numbers of 4,300 digits": lambda: adapter_file(1, fields={"note": "[" + ",".join(["9" * 4300] * 400) + "]"}),
    "100,000 fields": lambda: adapter_file(1, fields={f"f{i}": "" for i in range(100_000)}),
    "a header of empty lists": lambda: with_header(b'{"a":[' + b"[]," * 600_000 + b"[]]}"),
    "a header of empty objects": lambda: with_header(b"{" + b",".join(b'"%d":{}' % i for i in range(180_000)) + b"}"),
    "a header of empty tensors": lambda: with_header(b"{" + b",".join(b'"%d":{"dtype":"F16","shape":[0],"data_offsets":[0,0]}' % i for i in range(36_000)) + b"}"),
    "a header of 30 MB": lambda: with_header(b'{"a":"' + b"x" * 30_000_000 + b'"}'),
    "a header of one emoji and 2 MB": lambda: with_header(b'{"__metadata__":{"a":"' + "🐈".encode() + b"x" * 2_000_000 + b'"}}'),
    "a tensor of 10^15 dimensions' product": lambda: with_header(b'{"a":{"dtype":"F16","shape":[' + b"9," * 500_000 + b'9],"data_offsets":[0,0]}}'),
}
