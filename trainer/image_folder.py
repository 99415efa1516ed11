"""What lies in a folder of training pictures: which files are pictures, which are masks or captions of one, and what is left over."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from ..sparsedict_core.errors import DataError
from .captions import REPEATS, TABLES, TEXT_SUFFIXES, CaptionTable, in_one_message, read_table
from .images import PICTURE_SUFFIXES, is_picture

MASK_ENDING = "-masklabel"  # of OneTrainer: a-masklabel.png is the mask of a.png
SIDE_ENDINGS = (MASK_ENDING, "-condlabel")  # pictures about a picture, never trained on themselves
MASK_FOLDERS = ("mask", "masks")


@dataclass(frozen=True)
class PictureFile:
    """A picture to train on and what goes with it."""

    path: Path
    name: str  # its path below the folder
    texts: list[Path]  # caption files beside it; the first counts
    tables: list[tuple[CaptionTable, str]]  # what may hold its caption, with its name there
    folder_caption: str | None  # by the folder's name
    repeats: int
    mask: Path | None


@dataclass
class ImageFolder:
    """A folder's content. `ignored` holds by kind what nobody asked for; `folders` the pictures in each sub-folder that is not read."""

    path: Path
    pictures: list[PictureFile] = field(default_factory=list)
    tables: list[CaptionTable] = field(default_factory=list)
    lone_texts: list[str] = field(default_factory=list)
    lone_masks: list[str] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    folders: dict[str, int] = field(default_factory=dict)

    @property
    def faults(self) -> list[str]:
        """What is wrong in its tables."""
        return [fault for table in self.tables for fault in table.faults]


def read_folder(path: Path) -> ImageFolder:
    """The pictures directly in a folder, those in its sub-folders named as `10_zorp dog`, and those that its tables name, by name.

    Raises DataError for a folder that cannot be read or has no picture.
    """
    found = ImageFolder(path)
    files, folders = listed(path)
    named = REPEATS.fullmatch(path.resolve().name)
    _add(found, path, files, folders, 1, named[2] if named else None)
    for folder in folders:
        repeats = REPEATS.fullmatch(folder.name)
        if repeats:
            _add(found, folder, *listed(folder), int(repeats[1]), repeats[2])
    read = {picture.path for picture in found.pictures}
    for folder in folders:
        if not REPEATS.fullmatch(folder.name) and folder.name.lower() not in MASK_FOLDERS and not folder.name.startswith("."):
            with contextlib.suppress(OSError):
                there = {file for file in folder.iterdir() if is_picture(file)}
                if (unread := there - read) or not there:
                    found.folders[folder.name] = len(unread)
    if not found.pictures and found.faults:  # lines that cannot be read may name pictures in other folders
        raise DataError(in_one_message(found.faults))
    if not found.pictures:
        endings = " ".join(sorted(PICTURE_SUFFIXES))
        below = [name for name, count in found.folders.items() if count]
        inside = f" (its sub-folder {below[0]} has some)" if below else ""
        raise DataError(f"{path} has no picture in it{inside}; put the training pictures directly into this folder ({endings})")
    return found


def listed(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files and the folders directly in a folder, by name."""
    if folder.is_file():
        raise DataError(f"{folder} is a file; give the folder that holds the training pictures")
    if not folder.is_dir():
        raise DataError(f"the folder {folder} does not exist; check its path")
    try:
        inside = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be listed ({error.strerror}); check its permissions") from error
    return [path for path in inside if path.is_file()], [path for path in inside if path.is_dir()]


def _add(found: ImageFolder, folder: Path, files: list[Path], folders: list[Path], repeats: int, caption: str | None) -> None:
    """What `folder` holds, which is the folder itself or one of its sub-folders."""
    tables = {file: table for file in files if file.name in TABLES or file.suffix.lower() == ".json" if (table := read_table(file)) is not None}
    pictures = [file for file in files if is_picture(file) and not file.stem.endswith(SIDE_ENDINGS)]
    for table in tables.values():
        pictures += [file for name, _ in table.rows if "/" in name and (file := _below(folder, name)) is not None and file not in pictures]
    # A .json about other things is not a table.
    tables = {file: table for file, table in tables.items() if file.name in TABLES or any(table.captions(_name(picture, folder)) for picture in pictures)}
    masks = {file.stem.removesuffix(MASK_ENDING): file for file in files if is_picture(file) and file.stem.endswith(MASK_ENDING)}
    for inner in folders:
        if inner.name.lower() in MASK_FOLDERS:
            masks |= {file.stem: file for file in listed(inner)[0] if is_picture(file)}
    texts = {file for file in files if file.suffix.lower() in TEXT_SUFFIXES}
    beside = {picture: [file for suffix in TEXT_SUFFIXES for file in _texts_of(picture, texts, suffix)] for picture in pictures}
    for picture in pictures:
        known = [(table, _name(picture, folder)) for table in tables.values()]
        found.pictures.append(
            PictureFile(picture, _name(picture, found.path), beside[picture], known, caption, repeats, masks.get(picture.stem))
        )  # fmt: skip
    found.tables += tables.values()
    stems = {picture.stem for picture in pictures}
    found.lone_masks += [_name(file, found.path) for stem, file in masks.items() if stem not in stems]
    found.lone_texts += [_name(file, found.path) for file in sorted(texts - {file for row in beside.values() for file in row})]
    for file in files:
        if not is_picture(file) and file not in texts and file not in tables and not file.name.startswith("."):
            found.ignored[file.suffix.lower() or "without an ending"] += 1
        elif is_picture(file) and file.stem.endswith(SIDE_ENDINGS) and not file.stem.endswith(MASK_ENDING):
            found.ignored["-condlabel pictures"] += 1


def _texts_of(picture: Path, texts: set[Path], suffix: str) -> list[Path]:
    """A picture's own captions may lie in a sub-folder that a table named."""
    return [file for file in texts if file.stem == picture.stem and file.parent == picture.parent and file.suffix.lower() == suffix]


def _below(folder: Path, name: str) -> Path | None:
    """The picture of that name where it lies in the folder; a table may not lead out of it."""
    file = folder / name
    if not is_picture(file) or not file.is_file():
        return None
    resolved, root = file.resolve(), folder.resolve()
    if not resolved.is_relative_to(root):
        return None
    # Tables of other tools hold whole paths.
    return folder / resolved.relative_to(root) if Path(name).is_absolute() else file


def _name(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix()
