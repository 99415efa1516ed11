"""The text fields of an adapter's file: what is written, what is required, what it means.

Every field is a string in the file; JSON where it holds more than a word.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .adapter import Member
from .addresses import DIGITS, MEMBER_NAME, STREAM_NAME
from .bounds import LONGEST_FIELD, LONGEST_PATH, MOST_MEMBERS, MOST_STRENGTH, MOST_WIDTH, Bounds, most_sites
from .config import AdapterConfig
from .encoders import Encoder
from .errors import FileFormatError, SparseDictError
from .shown_text import shown
from .site import SiteName, site_key

if TYPE_CHECKING:
    from .adapter import SparseAdapter

FORMAT = "sparse_dict"
#: 2: a site's mean and scale are fp32 whatever the weights are. A file of version 1 is read as what it would be today.
FORMAT_VERSION = 2
_READ = ("1", str(FORMAT_VERSION))

# Fields that this module makes from the adapter itself; everything else in `adapter.metadata` goes through.
_OWN = ("format", "format_version", "encoder", "encoder_settings", "config", "component", "sites", "members")
# Text, though it may look like a list.
_TEXT = ("base_family", "base_fingerprint", "title")
# Families as trainers of LoRAs name them, by which other programs sort files.
_BASES = {"sd15": "sd_v1", "sd20": "sd_v2", "sdxl": "sdxl_base_v1-0", "sd3": "sd3", "flux": "flux1"}
# What is nested more deeply is too much for the programs that copy and show it; 25 rounds of composing are not.
_LEVELS = 100

_LAYER = Bounds(0, 10**DIGITS - 1, whole=True)
_STRENGTH = Bounds(-MOST_STRENGTH, MOST_STRENGTH)
_WIDTH = Bounds(1, MOST_WIDTH, whole=True)


@dataclass(frozen=True)
class SiteEntry:
    """One row of the file's site table."""

    name: SiteName
    d_in: int
    d_out: int
    member: str | None = None

    @property
    def key(self) -> str:
        """Of the site in its adapter, and of its tensors in the file."""
        return site_key(self.name.place, self.member)


@dataclass(frozen=True)
class FileMetadata:
    """The decoded text fields; `values` becomes the adapter's `metadata`."""

    version: int
    config: AdapterConfig
    component: str
    sites: list[SiteEntry]
    members: tuple[Member, ...]
    values: dict[str, Any]

    def encoder_of(self, entry: SiteEntry) -> Encoder:
        """The encoder of a site: its member's, in a composed adapter."""
        return self._encoders[entry.member]

    @cached_property
    def _encoders(self) -> dict[str | None, Encoder]:
        return {None: self.config.make_encoder(), **{member.name: member.config.make_encoder() for member in self.members}}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "format": FORMAT,
            "format_version": self.version,
            "encoder": self.config.encoder,
            "encoder_settings": self.config.encoder_settings,
            "config": self.config.to_dict(),
            "component": self.component,
            "sites": [_site_row(e.name, e.d_in, e.d_out, e.member) for e in self.sites],
            "members": [_member_row(member) for member in self.members],
            **self.values,
        }


def _site_row(name: SiteName, d_in: int, d_out: int, member: str | None) -> dict[str, Any]:
    row = {"path": name.path, "layer": name.layer, "stream": name.stream, "d_in": d_in, "d_out": d_out}
    if name.rows is not None:
        row["rows"] = list(name.rows)
    return row if member is None else {**row, "member": member}


def _member_row(member: Member) -> dict[str, Any]:
    return {"name": member.name, "strength": member.strength, "config": member.config.to_dict()}


def encode_metadata(adapter: SparseAdapter) -> dict[str, str]:
    """The text fields of the file. No dates or random numbers: the same adapter gives the same bytes.

    Raises FileFormatError for a metadata value that JSON cannot hold.
    """
    sites = [_site_row(site.name, site.d_in, site.d_out, site.member) for site in adapter.sites.values()]
    family = str(adapter.metadata.get("base_family", ""))
    fields = {key: value for key, value in adapter.metadata.items() if key not in _OWN}
    # As other programs read it; what they were told before a change of title or words is out of date.
    fields |= {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{family or 'unknown'}/sparse_dict",
        "modelspec.implementation": "SparseDict",
        "modelspec.title": str(adapter.metadata.get("title", "SparseDict adapter")),
        "modelspec.tags": ", ".join(filter(None, ("sparse dictionary", family))),
    }
    words = ", ".join(adapter.trigger_words)
    for key, text in (("modelspec.trigger_phrase", words), ("modelspec.usage_hint", words and f"Trigger words: {words}")):
        fields.pop(key, None)
        if text:
            fields[key] = text
    if family in _BASES:
        fields["ss_base_model_version"] = _BASES[family]
    fields.update(
        format=FORMAT,
        format_version=str(FORMAT_VERSION),
        encoder=adapter.config.encoder,
        encoder_settings=dict(adapter.config.make_encoder().settings),
        config=adapter.config.to_dict(),
        component=adapter.component,
        sites=sites,
    )
    if adapter.members:
        fields["members"] = [_member_row(member) for member in adapter.members]
    try:
        # Plain strings stay as they are, so that other tools can show them.
        texts = {k: v if isinstance(v, str) else _text(v) for k, v in fields.items()}
    except (TypeError, ValueError, RecursionError) as error:
        raise FileFormatError(f"the adapter's metadata holds a value that JSON cannot: {error}.") from error
    # Text from a command line or a file name may hold bytes that are no UTF-8; no training run is lost for them.
    texts = {key: text.encode(errors="replace").decode() for key, text in texts.items()}
    for key, text in texts.items():
        if len(text) > LONGEST_FIELD:
            raise FileFormatError(f"the adapter's metadata field {shown(key)} has {len(text):,} characters, a file takes {LONGEST_FIELD:,}; shorten it.")
    return texts


def decode_metadata(path: Path, raw: dict[str, str], size: int) -> FileMetadata:
    """The inverse, for a file of `size` bytes. Raises FileFormatError naming the file and the field."""
    if raw.get("format") != FORMAT:
        given = shown(raw.get("format", "missing"), 40)
        raise FileFormatError(f"{path} is no sparse dictionary (its format field is {given}); it may be a LoRA or a model.")
    version = raw.get("format_version", "")
    if version not in _READ:
        raise FileFormatError(f"{path}: format_version {shown(version, 40)!r} is unknown, this program reads {' and '.join(_READ)}; update it.")
    written = _json(path, raw, "config")
    config = _config(path, "config", written)
    members = _members(path, _json(path, raw, "members")) if "members" in raw else ()
    named = written.get("encoder", config.encoder)
    if raw.get("encoder", named) != named:
        raise FileFormatError(f"{path}: field encoder says {raw['encoder']!r:.60}, config says {named!r:.60}; the file was changed.")
    sites = _sites(path, _json(path, raw, "sites"), {member.name for member in members}, most_sites(size))
    values = {key: value if key in _TEXT else _plain(value) for key, value in raw.items() if key not in _OWN}
    return FileMetadata(int(version), config, raw.get("component", ""), sites, members, values)


def _config(path: Path, field: str, values: Any) -> AdapterConfig:
    try:
        return AdapterConfig.from_dict(values)
    except SparseDictError as error:
        raise FileFormatError(f"{path}: field {field}: {error}") from error


def _members(path: Path, rows: Any) -> tuple[Member, ...]:
    members: dict[str, Member] = {}
    try:
        if not isinstance(rows, list) or len(rows) > MOST_MEMBERS:
            raise ValueError(f"it must be a list of at most {MOST_MEMBERS} members")
        for row in rows:
            name, strength = row["name"], row["strength"]
            if not isinstance(name, str) or len(name) > LONGEST_PATH or MEMBER_NAME.fullmatch(name) is None or name in members:
                raise ValueError(f"{name!r:.60} is there twice, or no name of a member")
            if not _STRENGTH.hold(strength):
                raise ValueError(f"the strength of {name} is {strength!r:.60}, it must be {_STRENGTH}")
            members[name] = Member(name, float(strength), _config(path, "members", row["config"]))
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise FileFormatError(f"{path}: field members is damaged ({error}); the file was changed.") from error
    return tuple(members.values())


def _sites(path: Path, rows: Any, members: set[str], most: int) -> list[SiteEntry]:
    entries: dict[str, SiteEntry] = {}
    try:
        if not isinstance(rows, list) or not 0 < len(rows) <= most:
            raise ValueError(f"it names no site, or more than {most:,}, which are too many for a file of this size")
        for row in rows:
            entry = _site(row)
            if entry.key in entries or (entry.member is not None and entry.member not in members):
                raise ValueError(f"site {shown(entry.name.place)} is there twice or has no member")
            entries[entry.key] = entry
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise FileFormatError(f"{path}: field sites is damaged ({error}); the file was changed.") from error
    return list(entries.values())


def _site(row: Any) -> SiteEntry:
    """Raises TypeError, KeyError, AttributeError or ValueError for what is none."""
    rows = tuple(row["rows"]) if "rows" in row else None
    name, widths = SiteName(row["path"], row["layer"], row["stream"], rows), (row["d_in"], row["d_out"])
    if not isinstance(name.path, str) or not 0 < len(name.path) <= LONGEST_PATH:
        raise ValueError(f"path {name.path!r:.60} is no text of 1 to {LONGEST_PATH} characters")
    if not _LAYER.hold(name.layer):
        raise ValueError(f"layer {name.layer!r:.60} of {name.path} is no whole number of 0 or more with at most {DIGITS} digits")
    if name.stream is not None and (len(name.stream) > LONGEST_PATH or STREAM_NAME.fullmatch(name.stream) is None):
        raise ValueError(f"stream {name.stream!r:.60} of {name.path} is no name of a stream")
    if not all(_WIDTH.hold(width) for width in widths):
        raise ValueError(f"the widths of {name.path} are {widths!r:.60}, they must be {_WIDTH}")
    if rows is not None and not (len(rows) == 2 and all(_LAYER.hold(row) for row in rows) and rows[1] - rows[0] == widths[1]):
        raise ValueError(f"the slice of {name.path} is {rows!r:.60}, it must be start and stop with {widths[1]!r:.60} between them")
    return SiteEntry(name, *widths, row.get("member"))


def _json(path: Path, raw: dict[str, str], field: str) -> Any:
    if field not in raw:
        raise FileFormatError(f"{path}: metadata field {field} is missing; the file was changed.")
    try:
        return _parsed(raw[field])
    except ValueError as error:
        raise FileFormatError(f"{path}: metadata field {field} is not JSON ({error}); the file was changed.") from error


def _plain(text: str) -> Any:
    """JSON lists and objects are decoded, with null for NaN and infinities, which are no JSON; any other text stays text."""
    if text[:1] in "[{" and text:
        try:
            return _parsed(text, parse_constant=lambda _: None, parse_float=_finite)
        except ValueError:
            return text
    return text


def _text(value: Any) -> str:
    """JSON, in which a number that is not finite is null: a run whose log holds one is saved all the same."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None), ensure_ascii=False)


def _parsed(text: str, **options: Any) -> Any:
    """Raises ValueError for what is not JSON, or cannot be copied, shown and written again. `options` are `json.loads`'s."""
    try:
        value = json.loads(text, **options)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    # Half of a surrogate pair is fine in JSON, but neither a screen nor a file takes it.
    if re.search(r"\\u[dD][89a-fA-F]", text):
        json.dumps(value, ensure_ascii=False).encode()
    if not _shallow(value, _LEVELS):
        raise ValueError("it is nested too deeply")
    return value


def _finite(digits: str) -> float | None:
    """1e999 is a number in JSON and none here."""
    value = float(digits)
    return value if math.isfinite(value) else None


def _shallow(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested in no more than `levels` levels."""
    layer = [value]
    for _ in range(levels):
        layer = [item for v in layer if isinstance(v, (list, dict)) for item in (v.values() if isinstance(v, dict) else v) if isinstance(item, (list, dict))]
        if not layer:
            return True
    return False
