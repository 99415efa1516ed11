"""What is said of a picture: text files beside it, tables of several tools, a folder's name, or one caption for all."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ..sparsedict_core.errors import DataError
from ..sparsedict_core.regular_file import read_regular
from ..sparsedict_core.shown_text import MOST_SAID, shortened

AND = "; and "  # between faults of several kinds
DEFAULT_CAPTION = "a photo of {}"
SLOTS = ("{}", "{word}", "[trigger]")  # where a caption takes the placeholder word

TEXT_SUFFIXES = (".txt", ".caption")  # beside a picture, under its name; the first that is there counts
TABLES = ("metadata.jsonl", "metadata.csv")  # diffusers' and datasets' image folder
COLUMNS = ("text", "caption", "prompt")
#: `10_zorp dog`: kohya's repeats and caption. A year before the _ is no number of repeats.
REPEATS = re.compile(r"(\d{1,3})_(.+)")

ENCODINGS = [(codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
             (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")]  # fmt: skip


def read_text(path: Path) -> str:
    """A text file in UTF-8, or in what the mark at its start says. Raises DataError."""
    try:
        data = read_regular(path)
        return data.decode(next((name for mark, name in ENCODINGS if data.startswith(mark)), "utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text; save the caption again as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check its permissions") from error


def read_captions(path: Path, word: str | None) -> tuple[list[str], int]:
    """The captions in a text file, with the word filled in, and how many lines it has.

    Several lines are several captions, of which training draws one at a time; but where there is a word and a line lacks it, the
    lines are the paragraphs of one caption.
    """
    lines = [filled(line.strip(), word, str(path)) for line in read_text(path).splitlines() if line.strip()]
    if not lines:
        raise DataError(f"the caption file {path} is empty; write what is on the picture, or remove the file to use the caption for all")
    return (lines if all(names(line, word) for line in lines) else [" ".join(lines)]), len(lines)


def names(caption: str, word: str | None) -> bool:
    """Whether the caption holds the word, in small or large letters; yes where there is no word."""
    return word is None or word.strip().casefold() in caption.casefold()


def filled(caption: str, word: str | None, source: str) -> str:
    """The caption with the placeholder word in its slots; not str.format, as other braces are plain text."""
    for slot in SLOTS:
        if slot in caption:
            if word is None:
                raise DataError(f"{source} has {slot} in it but there is no placeholder word; give one, or write the word out")
            caption = caption.replace(slot, word.strip())
    return caption


def caption_for_all(caption: str, word: str | None, source: str) -> str:
    """The one caption that is given for all pictures, with the word in it. Raises DataError where it says nothing of the word."""
    if not caption.strip():
        raise DataError(f"the caption for {source} is empty; say what is on the picture")
    line = filled(caption.strip(), word, f"the caption for {source}")
    if not names(line, word):
        raise DataError(f"the caption {caption!r} for {source} does not name {word!r}; put {{}} where the word belongs")
    return line


class CaptionTable:
    """Captions by file name from one file for many pictures: `metadata.jsonl`, `metadata.csv`, or kohya's metadata .json.

    `faults` say what is wrong in the file, one text for each kind of fault.
    """

    def __init__(self, path: Path, rows: list[tuple[str, list[str]]], faults: Sequence[str] = ()) -> None:
        self.path, self.rows, self.faults = path, rows, faults
        self.used: set[int] = set()
        self._rows: dict[str, int] = {}
        # Other tools leave the folder or the ending out; an exact name goes first.
        forms = (lambda name: name, lambda name: PurePosixPath(name).name, lambda name: PurePosixPath(name).stem)
        for form in forms:
            for number, (name, _) in enumerate(rows):
                self._rows.setdefault(form(name), number)

    def captions(self, name: str) -> list[str]:
        """Those of the picture at this path below the table's folder; none where it names no such picture."""
        path = PurePosixPath(name)
        number = next((self._rows[key] for key in (name, path.name, path.stem) if key in self._rows), None)
        if number is None:
            return []
        self.used.add(number)
        return self.rows[number][1]

    @property
    def unused(self) -> list[str]:
        """The names for which there is no picture."""
        return [name for number, (name, _) in enumerate(self.rows) if number not in self.used]


def read_table(path: Path) -> CaptionTable | None:
    """The captions in a file, or None for a .json that holds something else."""
    try:
        text = read_text(path)
    except DataError as error:
        return CaptionTable(path, [], [str(error)]) if path.name in TABLES else None
    if path.name == "metadata.jsonl":
        return by_line(path, ((number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()))
    if path.name == "metadata.csv":
        return by_line(path, enumerate(csv.DictReader(io.StringIO(text)), 2))
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    rows = [(name.replace("\\", "/"), captions) for name, value in values.items() if (captions := kohya_captions(value))]
    return CaptionTable(path, rows) if rows else None


def by_line(path: Path, lines: Iterable[tuple[int, Any]]) -> CaptionTable:
    """From numbered lines: rows, or JSON of one."""
    rows: list[tuple[str, list[str]]] = []
    wrong: dict[str, list[int]] = {}
    unreadable = []
    try:
        for number, line in lines:
            try:
                rows.append(entry(parsed(line) if isinstance(line, str) else line))
            except DataError as error:
                wrong.setdefault(str(error), []).append(number)
    except csv.Error as error:
        unreadable = [f"{path} cannot be read as a table ({error}); save it again, or remove the file"]
    return CaptionTable(path, rows, [f"line {numbers[0]} of {path} {what}{and_more(numbers, 'line')}" for what, numbers in wrong.items()] + unreadable)


def parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError("is not JSON; write one object a line, or remove the file") from error


def entry(row: Any) -> tuple[str, list[str]]:
    """A row's file name and its captions. Raises DataError for a row without either."""
    name = row.get("file_name") if isinstance(row, dict) else None
    if not isinstance(name, str) or not name.strip():
        raise DataError("has no file_name; say there which picture it is about")
    others = [key for key in row if key != "file_name"]
    column = next((key for key in COLUMNS if key in row), others[0] if len(others) == 1 else None)
    if column is None:
        raise DataError(f"has no caption; call its column {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}")
    value = row[column]
    texts = value if isinstance(value, list) else [value]
    return name.strip().replace("\\", "/"), [one_line(text) for text in texts if isinstance(text, str) and text.strip()]


def kohya_captions(value: Any) -> list[str]:
    """A caption, tags, or both with a comma between, as kohya's trainer joins them."""
    parts = [value] if isinstance(value, str) else [value.get("caption"), value.get("tags")] if isinstance(value, dict) else []
    text = ", ".join(one_line(part) for part in parts if isinstance(part, str) and part.strip())
    return [text] if text else []


def in_one_message(told: list[str]) -> str:
    """Faults of several kinds. The longest are cut where all of them are more than an error may say, so that no kind is lost."""
    told = [*(text.removesuffix(".") for text in told[:-1]), told[-1]]
    room, kept = MOST_SAID - len(AND) * (len(told) - 1), {}
    for number, text in enumerate(sorted(told, key=len)):
        share = room // (len(told) - number)
        kept[text] = text if len(text) <= share else shortened(text, share - len("… (1,000,000 more characters) …"))
        room -= len(kept[text])
    return AND.join(kept[text] for text in told)


def and_more(found: Sequence[object], what: str) -> str:
    """After what is said of the first alone: how many others it holds for."""
    return f" (and {counted(len(found) - 1, what)} more)" if len(found) > 1 else ""


def counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def one_line(text: str) -> str:
    return " ".join(text.split())
