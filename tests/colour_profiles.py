"""Small colour profiles, made by hand: none may be fetched, and Pillow makes only sRGB, XYZ and Lab."""

from __future__ import annotations

import itertools
import struct

WHITE = (0.9642, 1.0, 0.8249)  # D50, which all profiles are relative to
# Red, green and blue of the spaces, adapted to D50.
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
PROPHOTO = ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491))


def profile(space: bytes, kind: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    size = start + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, kind, space, connection)
    header += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28 + xyz(WHITE)[8:] + b"\0" * 48
    return header + table + body


def xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def text(words: str) -> bytes:
    return b"text\0\0\0\0" + words.encode() + b"\0"


def named(words: str) -> dict[bytes, bytes]:
    described = b"desc\0\0\0\0" + struct.pack(">I", len(words) + 1) + words.encode() + b"\0" * (1 + 78)
    return {b"desc": described, b"cprt": text("none"), b"wtpt": xyz(WHITE)}


def rgb_profile(primaries: tuple[tuple[float, ...], ...], gamma: float) -> bytes:
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    colours = {name: xyz(value) for name, value in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries)}
    return profile(b"RGB ", b"mntr", b"XYZ ", {**named("test"), **colours, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)})


def grey_profile(gamma: float) -> bytes:
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    return profile(b"GRAY", b"mntr", b"XYZ ", {**named("test"), b"kTRC": curve})


def cmyk_profile(lab_of) -> bytes:
    """`lab_of(c, m, y, k)`, each 0 or 1 → (L, a, b): a printer whose inks are known at their corners alone."""
    points = b""
    for inks in itertools.product((0, 1), repeat=4):
        lightness, a, b = lab_of(*inks)
        points += bytes([round(lightness * 2.55), round(a + 128), round(b + 128)])
    ramp = bytes(range(256))
    identity = b"".join(struct.pack(">i", 65536 if row == column else 0) for row in range(3) for column in range(3))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + points + ramp * 3
    return profile(b"CMYK", b"prtr", b"Lab ", {**named("ink"), b"A2B0": table, b"A2B1": table})
