"""Adapters asked for in a prompt: `<sparsedict:cat:0.8:keep=0.25>`. One grammar for every host that has prompts.

    tag      = "<sparsedict:" name [ ":" strength ] { ":" option } ">"
    option   = "keep=" share | "top=" number | "atoms=" addresses | "layers=" addresses | "gain=" addresses "*" number
             | "start=" share | "end=" share

Within a tag addresses are joined by "+", as in `atoms=L17[137]+L3[0-15]`; several gains are joined by "+" too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from .adapter import SparseAdapter
from .addresses import parse_addresses
from .errors import AddressError, TagError
from .gains import NUMBER, resolve_gains
from .selection import Selection, select

NAME = "sparsedict"
OPTIONS = ("keep", "top", "atoms", "layers", "gain", "start", "end")
_TAG = re.compile(rf"<{NAME}:([^<>]*)>")
# As the panel reads it: float() also takes "0_8" for 8.
_NUMBER = re.compile(NUMBER, re.ASCII)
_OPTION = re.compile(r"([A-Za-z_]+)=(.*)", re.DOTALL)
Wrong = Callable[[str], TagError]
_PLUS = re.compile(r"\+(?=\s*(?:[A-Za-z_][\w.\-]*\s*:)?\s*[Ll][0-9])")  # between addresses, never within a number


@dataclass(frozen=True)
class PromptTag:
    """One tag. `text` is the tag as it was written, for messages; addresses are as the core writes them, with commas."""

    text: str
    name: str
    strength: float = 1.0
    keep: float | None = None
    top: int | None = None
    atoms: str | None = None
    layers: str | None = None
    gain: str | None = None  # `L17[137]=1.5, L3=0`
    start: float = 0.0
    end: float = 1.0

    def gains(self, adapter: SparseAdapter) -> dict[str, Tensor] | None:
        """Gains (m) by site key; None where the tag takes the whole adapter as it is.

        Raises SelectionError or AddressError for atoms that the adapter does not have.
        """
        gains = None
        if self.keep is not None or self.top is not None or self.atoms is not None or self.layers is not None:
            nothing_else = self.keep is None and self.top is None and self.atoms is None
            keep = 1.0 if nothing_else else self.keep
            top = 0 if keep == 0 else self.top
            gains = select(adapter, Selection(keep=keep or None, top=top, atoms=self.atoms, layers=self.layers)).gains()
        if self.gain is not None:
            wanted = resolve_gains(adapter, self.gain)
            gains = wanted if gains is None else {key: values * wanted[key] for key, values in gains.items()}
        return gains

    def acts_at(self, progress: float) -> bool:
        """Whether the adapter acts at this part of the sampling, from 0 (noise) to 1 (picture)."""
        return self.start <= progress < self.end or (self.end == 1.0 and progress >= 1.0)


def find_tags(prompt: str) -> tuple[str, list[PromptTag]]:
    """The prompt without its tags, and the tags in order. Raises TagError for one that cannot be read."""
    tags = [parse_tag(match.group(1).split(":")) for match in _TAG.finditer(prompt)]
    return _TAG.sub("", prompt), tags


def parse_tag(parts: Iterable[str]) -> PromptTag:
    """A tag from what stands between its colons, as hosts hand it over. Raises TagError, which shows the tag."""
    items = [part.strip() for part in parts]
    text = f"<{NAME}:{':'.join(items)}>"

    def wrong(why: str) -> TagError:
        return TagError(f"{text}: {why}.")

    if not items or not items[0]:
        raise wrong("no adapter is named; write <sparsedict:name:0.8>")
    values: dict[str, str] = {}
    strength, last = 1.0, ""
    for place, item in enumerate(items[1:], 1):
        option = _OPTION.fullmatch(item)
        if option is not None:
            last = option.group(1).lower()
            if last not in OPTIONS:
                raise wrong(f"there is no option {option.group(1)!r}; the options are {', '.join(OPTIONS)}")
            if last in values:
                raise wrong(f"{last} is given twice")
            values[last] = option.group(2).strip()
        elif last in ("atoms", "layers", "gain"):
            values[last] += f":{item}"  # a member's address, cat:L17[137], which the host has taken apart
        elif place == 1:
            strength = _number(item, wrong, "the strength")
        else:
            raise wrong(f"{item!r} is neither a strength nor an option; the options are {', '.join(OPTIONS)}")
    amounts = [name for name in ("keep", "top", "atoms") if name in values]
    if len(amounts) > 1:
        raise wrong(f"{' and '.join(amounts)} exclude each other; give one")
    for name, value in values.items():
        if not value:
            raise wrong(f"{name} is empty")
    shares = {name: _share(values[name], wrong, name) for name in ("keep", "start", "end") if name in values}
    start, end = shares.get("start", 0.0), shares.get("end", 1.0)
    if start >= end:
        raise wrong(f"it would act from {start:g} to {end:g}, which is never; start must be below end")
    if "top" in values and re.fullmatch(r"[0-9]{1,9}", values["top"]) is None:
        raise wrong(f"top is {values['top']!r}; give a number of atoms")
    top = int(values["top"]) if "top" in values else None
    addresses = {name: _addresses(values[name], wrong) for name in ("atoms", "layers") if name in values}
    gain = _gain(values["gain"], wrong) if "gain" in values else None
    return PromptTag(text, items[0], strength, shares.get("keep"), top, addresses.get("atoms"), addresses.get("layers"), gain, start, end)


def _number(text: str, wrong: Wrong, what: str) -> float:
    value = float(text) if _NUMBER.fullmatch(text.strip()) else math.nan
    if not math.isfinite(value):
        raise wrong(f"{what} is {text!r}; give a number such as 0.8")
    return value


def _share(text: str, wrong: Wrong, name: str) -> float:
    value = _number(text.removesuffix("%"), wrong, name) / (100 if text.endswith("%") else 1)
    if not 0 <= value <= 1:
        raise wrong(f"{name} is {text}; give a share from 0 to 1")
    return value


def _addresses(text: str, wrong: Wrong) -> str:
    joined = _PLUS.sub(",", text)
    try:
        parse_addresses(joined)
    except AddressError as error:
        raise wrong(str(error).rstrip(".")) from error
    return joined


def _gain(text: str, wrong: Wrong) -> str:
    found, waiting = [], []
    for part in _PLUS.split(text):
        addresses, star, number = part.rpartition("*")
        waiting.append(addresses if star else part)
        if star:  # one number for all addresses since the last
            found.append(f"{_addresses('+'.join(waiting), wrong)}={_number(number, wrong, 'the gain')!r}")
            waiting = []
    if waiting:
        raise wrong(f"{'+'.join(waiting)!r} sets no gain; write gain=L17[137]*1.5")
    return ", ".join(found)
