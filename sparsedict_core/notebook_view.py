"""An adapter as a notebook shows it: what it says of itself, and its layers × atoms. Plain HTML with pictures in it, no library."""

from __future__ import annotations

import base64
import struct
import zlib
from html import escape
from typing import TYPE_CHECKING

from .addresses import site_labels
from .shown_text import shown

if TYPE_CHECKING:
    from .adapter import SparseAdapter
    from .site import SparseSite

WIDEST = 2048  # columns; a file with higher ids is shown without its gaps
MOST_ROWS = 200
CELL = 6  # pixels
MISSING = (228, 228, 228)  # an atom that the file no longer has
LOW, HIGH = (68, 1, 84), (253, 231, 37)


def html(adapter: SparseAdapter) -> str:
    """The adapter's page: a headline, and a row of coloured cells a site, brighter where an atom is more important."""
    sites = list(adapter.sites.values())
    highest = max((int(site.atom_ids.max()) for site in sites if site.atoms), default=0)
    columns = highest + 1 if highest < WIDEST else max(site.atoms for site in sites)
    top = max((float(site.importance.max()) for site in sites if site.atoms), default=0.0) or 1.0
    rows = "".join(
        f'<tr><td style="text-align:right;padding:0 6px">{escape(shown(label))}</td>'
        f'<td style="padding:0"><img style="image-rendering:pixelated;height:{CELL * 2}px;width:{columns * CELL}px;max-width:none" '
        f'title="{site.atoms} atoms" src="data:image/png;base64,{base64.b64encode(strip(site, columns, top)).decode()}"></td></tr>'
        for label, site in list(zip(site_labels(adapter).values(), sites))[:MOST_ROWS]
    )
    more = f"<div>and {len(sites) - MOST_ROWS} more sites</div>" if len(sites) > MOST_ROWS else ""
    return f'<div><div>{headline(adapter)}</div><div style="overflow-x:auto"><table style="border-spacing:0 1px">{rows}</table></div>{more}</div>'


def headline(adapter: SparseAdapter) -> str:
    title, family = (shown(adapter.metadata.get(name) or "") for name in ("title", "base_family"))
    words = ", ".join(shown(word) for word in adapter.trigger_words)
    parts = [f"<b>{escape(title)}</b>" if title else "", escape(f"for {family}") if family else "", escape(f"say “{words}”") if words else "",
             f"{adapter.atom_count} atoms at {len(adapter.sites)} sites"]  # fmt: skip
    return " · ".join(part for part in parts if part)


def strip(site: SparseSite, columns: int, top: float) -> bytes:
    """A PNG of one row, a pixel an atom. The square root keeps the many weak atoms apart."""
    pixels = [MISSING] * columns
    places = site.atom_ids.tolist()
    for place, value in zip(places if max(places, default=0) < columns else range(site.atoms), site.importance.float().tolist()):
        share = min(1.0, max(0.0, value / top) ** 0.5) if value == value else 0.0
        pixels[place] = tuple(round(low + share * (high - low)) for low, high in zip(LOW, HIGH))  # type: ignore[assignment]
    return png(bytes(channel for pixel in pixels for channel in pixel), columns)


def png(row: bytes, width: int) -> bytes:
    """One row of RGB pixels as a file."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, 1, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
