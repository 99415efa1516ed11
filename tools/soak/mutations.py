"""A real file, changed as damage or malice would: its header, offsets, shapes, dtypes, sizes, texts, ids and names."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

NUMBERS: list[Any] = [-1, 0, 1, 2, 7, 255, 2**31 - 1, 2**31, 2**53, 2**63, 10**40, 0.5, 1e308, True, None, "", "x", [], {}, [1], {"a": 1}]
TEXTS = ["", "\x00", "\x1b[2J", "\u202e", "a" * 3000, "[" * 300, "{}", "[]", "null", "NaN", "[NaN]", "1e999", '"\\ud800"', "\n", "sparse_dict", "2", "🐈", "[[[[1]]]]", "true"]


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One to three changes; the result may still be sound."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        data = chance.choice(_CHANGES)(data, chance)
    return data


def _with_header(change: Callable[[dict[str, Any], random.Random], None]) -> Callable[[bytes, random.Random], bytes]:
    """`change` works on the parsed header; where there is none any more, bytes are changed."""

    def changed(data: bytes, chance: random.Random) -> bytes:
        length = int.from_bytes(data[:8], "little")
        try:
            header = json.loads(data[8 : 8 + length])
            change(header, chance)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            return _flip(data, chance)
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=chance.random() < 0.5).encode(errors="surrogatepass")
        return len(text).to_bytes(8, "little") + text + data[8 + length :]

    return changed


def _tensor(header: dict[str, Any], chance: random.Random) -> tuple[str, dict[str, Any]]:
    name = chance.choice([name for name in header if name != "__metadata__"])
    return name, header[name]


def _shape(header: dict[str, Any], chance: random.Random) -> None:
    shape = _tensor(header, chance)[1]["shape"]
    if shape and chance.random() < 0.7:
        shape[chance.randrange(len(shape))] = chance.choice(NUMBERS)
    else:
        shape.append(chance.choice(NUMBERS))


def _dtype(header: dict[str, Any], chance: random.Random) -> None:
    _tensor(header, chance)[1]["dtype"] = chance.choice(["F16", "BF16", "F32", "F64", "I32", "I64", "U8", "BOOL", "F8_E4M3", "", 3, None, "F" * 500])


def _offsets(header: dict[str, Any], chance: random.Random) -> None:
    offsets = _tensor(header, chance)[1]["data_offsets"]
    offsets[chance.randrange(2)] = chance.choice([*NUMBERS, offsets[0] + chance.randrange(-9, 9), offsets[1] + chance.randrange(-9, 9)])


def _names(header: dict[str, Any], chance: random.Random) -> None:
    name, entry = _tensor(header, chance)
    if chance.random() < 0.6:
        del header[name]
    header[chance.choice([name + ".x", name.upper(), name.replace(".", ":"), chance.choice(TEXTS), "aside." + name, name.rsplit(".", 1)[0]])] = entry


def _lie_of_size(header: dict[str, Any], chance: random.Random) -> None:
    """Shape and offsets agree, and with nothing else."""
    _, entry = _tensor(header, chance)
    rows = chance.choice([0, 1, 2**20, 2**40])
    entry["shape"] = [rows, *entry["shape"][1:]]


def _field(header: dict[str, Any], chance: random.Random) -> None:
    fields = header["__metadata__"]
    name = chance.choice([*fields, "new", "members", "lineage", "training", "trigger_words"])
    action = chance.random()
    if action < 0.2:
        fields.pop(name, None)
    elif action < 0.5:
        fields[name] = chance.choice([*TEXTS, *NUMBERS])
    else:
        value = json.loads(fields.get(name, "[]"))
        fields[name] = json.dumps(_changed_within(value, chance))


def _changed_within(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        if chance.random() < 0.15:
            value[chance.choice(TEXTS)] = value.pop(key)
        else:
            value[key] = _changed_within(value[key], chance)
        return value
    if isinstance(value, list) and value and chance.random() < 0.9:
        place = chance.randrange(len(value))
        if chance.random() < 0.2:
            value.append(value[place])
        else:
            value[place] = _changed_within(value[place], chance)
        return value
    return chance.choice([*NUMBERS, *TEXTS])


def _flip(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    end = len(changed) if chance.random() < 0.6 else min(len(changed), 600)
    for _ in range(chance.choice((1, 1, 4, 40))):
        if end:
            changed[chance.randrange(end)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    return bytes(changed)


def _words(data: bytes, chance: random.Random) -> bytes:
    """Numbers of four bytes in the data: NaN, infinity, ids that are there twice."""
    start = 8 + int.from_bytes(data[:8], "little")
    if start + 8 > len(data):
        return _flip(data, chance)
    changed, place = bytearray(data), start + 4 * chance.randrange((len(data) - start) // 4)
    changed[place : place + 4] = chance.choice([b"\0\0\x80\x7f", b"\0\0\xc0\x7f", b"\xff\xff\xff\xff", b"\x01\0\0\0", bytes(4), b"\xff\xff\x7f\x7f", changed[place - 4 : place]])
    return bytes(changed)


def _length(data: bytes, chance: random.Random) -> bytes:
    length = int.from_bytes(data[:8], "little")
    return chance.choice([0, 1, length - 1, length + 1, 2 * length, 2**32, 2**63, 2**64 - 1]).to_bytes(9, "little")[:8] + data[8:] if length else data


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _longer(data: bytes, chance: random.Random) -> bytes:
    return data + chance.randbytes(chance.choice((1, 8, 1000)))


_CHANGES: list[Callable[[bytes, random.Random], bytes]] = [
    *map(_with_header, (_shape, _dtype, _offsets, _names, _lie_of_size, _field, _field, _field)), _flip, _words, _words, _length, _cut, _longer,
]  # fmt: skip
