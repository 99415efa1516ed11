"""What a number from a file or a user may be, and how much of everything a file may hold.

Adapters are files that strangers share: each bound is looked at before memory or time is spent on what it bounds. They lie far above
what models of today need.
"""

from __future__ import annotations

from math import inf
from typing import Any, NamedTuple

from .errors import SparseDictError

#: Ids of a site's atoms are below it; of the atoms themselves, see `most_atoms`.
MOST_ATOMS = 1 << 20
#: Channels of a Linear, and the rank of a basis.
MOST_WIDTH = 1 << 20
MOST_MEMBERS = 1 << 8
#: Fields of text in a file, characters of one of them, and of a site's path.
MOST_FIELDS, LONGEST_FIELD, LONGEST_PATH = 1 << 9, 1 << 20, 1 << 9


def most_header(size: int) -> int:
    """Bytes that the header of a file of `size` bytes may take. Objects made of JSON are up to 30 times as large as their text."""
    return (1 << 21) + size // 4


def most_sites(size: int) -> int:
    """Sites, over all members, of an adapter in a file of `size` bytes: each is an object with a dozen tensors, whatever is in them."""
    return min(1 << 12, (1 << 10) + size // 4096)


def most_atoms(size: int) -> int:
    """Atoms, over all sites, of an adapter in a file of `size` bytes: lists of them are several objects each."""
    return (1 << 16) + size // 64


#: Of an adapter and of a member, either way: few bear more than 2, and half precision has a number for no more than the product of two such.
MOST_STRENGTH = 250.0


def checked_strength(value: float, what: str, error: type[SparseDictError] = SparseDictError) -> float:
    """Raises `error` for what is no strength."""
    if not abs(value) <= MOST_STRENGTH:
        raise error(f"{what} is {value}; give a finite number of at most {MOST_STRENGTH:g}, 1 is the adapter as it was trained and 0 the bare base.")
    return float(value)


#: Of one atom: sums over any number of atoms stay finite in fp32.
MOST_IMPORTANCE = 1e30


class Bounds(NamedTuple):
    """A number from `low` to `high`, both included."""

    low: float
    high: float
    whole: bool = False

    def hold(self, value: Any) -> bool:
        """Whether `value` is such a number; NaN, infinity, True and text are none."""
        kinds = int if self.whole else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and self.low <= value <= self.high and abs(value) != inf

    def __str__(self) -> str:
        low, high = (f"{n:,}" if self.whole else f"{n:g}" for n in (self.low, self.high))
        return f"a {'whole ' if self.whole else ''}number from {low} to {high}"
