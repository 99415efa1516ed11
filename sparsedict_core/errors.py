"""Errors made for people: one sentence that says what is wrong, where, and what to do."""

from __future__ import annotations

from .shown_text import MOST_SAID, shown


def first_line(error: BaseException) -> str:
    """Of an error that is shown inside another's sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")


class SparseDictError(Exception):
    """Parent of every error that SparseDict raises on purpose. Its text may quote a stranger's file, so it is escaped and bounded here.

    `about_base`: it is about which base is used, so that a program that chose the base itself can say so.
    """

    def __init__(self, message: object = "", *, about_base: bool = False) -> None:
        super().__init__(shown(message, MOST_SAID))
        self.about_base = about_base


class FileFormatError(SparseDictError):
    """A file that cannot be read or written as a sparse dictionary."""


class AddressError(SparseDictError):
    """An atom address that cannot be parsed, is ambiguous, or leads nowhere."""


class SelectionError(SparseDictError):
    """A selection of atoms that makes no sense (share out of range, no order known, …)."""


class SiteError(SparseDictError):
    """A site that is not in the model, or whose widths do not fit."""


class CompositionError(SparseDictError):
    """Adapters that cannot be put into one."""


class TagError(SparseDictError):
    """A tag in a prompt that cannot be read or followed."""


class TrainingError(SparseDictError):
    """A training run that cannot start or go on."""


class CheckpointError(TrainingError):
    """A checkpoint that is damaged, foreign, or of a run with other settings."""


class DataError(SparseDictError):
    """Training data that cannot be used."""
