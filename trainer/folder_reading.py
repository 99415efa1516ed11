"""Reading a folder of training pictures whole: each file is used, refused by name, or noted as left out."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import reduce
from math import gcd
from pathlib import Path

from torch import Tensor

from ..sparsedict_core.errors import DataError
from .captions import TEXT_SUFFIXES, and_more, caption_for_all, filled, names, read_captions
from .image_folder import ImageFolder, PictureFile, read_folder
from .images import read_picture
from .masks import MASKS, mask_of

MASKED = "the loss counts inside its mask"
SEVERAL = "several captions, one a line"
JOINED = "one caption, as not every line names the word"


@dataclass(frozen=True)
class ReadPicture:
    """A picture with all that is trained of it."""

    name: str
    image: Tensor  # (3, H, W) in [-1, 1]
    captions: list[str]
    mask: Tensor | None  # (1, H, W) from 0 to 1
    repeats: int
    size: tuple[int, int]  # (height, width) in the file


@dataclass
class FolderReading:
    """What became of a folder's files, for the summary before training."""

    folder: ImageFolder
    word: str | None
    faults: list[str]  # what has to be mended before any of it can be trained on
    sources: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # where captions come from → pictures
    notes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # what the user should know → pictures
    sizes: list[tuple[int, int]] = field(default_factory=list)  # (height, width) in the file, by picture
    left_out: list[tuple[Path, DataError]] = field(default_factory=list)  # the pictures that were skipped, and what is wrong with each
    several: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # how text files of several lines were taken → which

    def leave_out(self, name: str) -> None:
        """A picture that is not trained on after all; what is wrong with it is another matter."""
        for source, pictures in list(self.sources.items()):
            self.sources[source] = [other for other in pictures if other != name]
            if not self.sources[source]:
                del self.sources[source]


def read_pictures(
    folder: Path, caption: str | None, word: str | None, missing: str, default_caption: str, area: float, masks: str, skip_unreadable: bool
) -> tuple[list[ReadPicture], FolderReading]:
    """The pictures of a folder, in the order of their names, and what became of it; see `ConceptData.from_folder`."""
    if masks not in MASKS:
        raise DataError(f"masks is {masks!r}; give one of {', '.join(MASKS)}")
    found = read_folder(folder)
    if word is not None and not word.strip():
        raise DataError(f"the placeholder word for {folder} is empty; give a word that stands for the concept")
    reading = FolderReading(found, word, found.faults)
    faults: list[tuple[Path, DataError]] = []
    no_captions: list[tuple[Path, DataError]] = []
    read: list[ReadPicture] = []
    # All of it, though a forgotten caption could be told before the first picture is decoded: one run tells all that is to be mended.
    for file in found.pictures:
        captions: list[str] = []
        lacking: DataError | None = None
        try:
            captions = captions_of(file, caption, word, missing, default_caption, reading)
        except DataError as error:
            lacking = error
        try:
            read.append(read_one(file, captions, area, masks, reading))
        except DataError as error:  # what is no picture needs no caption
            faults.append((file.path, error))
            reading.leave_out(file.name)
        else:
            if lacking is not None:
                no_captions.append((file.path, lacking))
    if faults and not (skip_unreadable and read):
        what = f"{len(faults)} of {len(found.pictures)} pictures cannot be used"
        reading.faults.append(f"{together(faults, what)}; skip_unreadable (--skip-unreadable, on the node “skip broken”) leaves such pictures out")
    if no_captions:
        reading.faults.append(together(no_captions, f"the captions of {len(no_captions)} pictures are missing or cannot be used"))
    reading.left_out = faults
    reading.sizes = [picture.size for picture in read]
    common = reduce(gcd, (picture.repeats for picture in read), 0)
    return [replace(picture, repeats=picture.repeats // common) for picture in read], reading


def together(faults: list[tuple[Path, DataError]], what: str) -> str:
    """All faults in one sentence; a single one says it all itself."""
    return str(faults[0][1]) if len(faults) == 1 else f"{what}: {' – '.join(alike(faults))}"


def alike(faults: list[tuple[Path, DataError]]) -> list[str]:
    """What is wrong, each fault said of the first picture that has it, with the number of the others."""
    groups: dict[str, list[str]] = defaultdict(list)
    for path, fault in faults:
        groups[str(fault).replace(str(path), "").replace(path.stem, "")].append(str(fault))
    return [said[0] + and_more(said, "picture") for said in groups.values()]


def read_one(file: PictureFile, captions: list[str], area: float, masks: str, reading: FolderReading) -> ReadPicture:
    """A picture and its mask. Raises DataError."""
    picture = read_picture(file.path, area)
    mask = mask_of(picture, file.mask, masks)
    for note in picture.notes:
        reading.notes[note].append(file.name)
    if mask is not None:
        reading.notes[MASKED].append(file.name)
    elif file.mask is not None:
        reading.notes["masks are off, so all of it counts"].append(file.name)
    elif picture.alpha is not None:
        reading.notes["transparent, so it was laid on white"].append(file.name)
    return ReadPicture(file.name, picture.image, captions, mask, file.repeats, picture.size)


def captions_of(file: PictureFile, caption: str | None, word: str | None, missing: str, default_caption: str, reading: FolderReading) -> list[str]:
    """A picture's own captions, else the one for all, else its folder's, else the default where there is a word.

    A folder's caption counts where it names the word. Raises DataError where there is none, or one that cannot be used.
    """
    for text in file.texts[:1]:
        lines, number = read_captions(text, word)
        if number > 1:
            reading.several[SEVERAL if len(lines) > 1 else JOINED].append(text.name)
        for other in file.texts[1:]:
            reading.notes[f"its {other.suffix} is not used, as its {text.suffix} is"].append(file.name)
        for table, name in file.tables:
            if table.captions(name):
                reading.notes[f"its line in {table.path.name} is not used, as its {text.suffix} is"].append(file.name)
        reading.sources[f"from {text.suffix} files"].append(file.name)
        return lines
    for table, name in file.tables:
        lines = [filled(line, word, str(table.path)) for line in table.captions(name)]
        if lines:
            reading.sources[f"from {table.path.name}"].append(file.name)
            return lines
    if caption is not None:
        line = caption_for_all(caption, word, str(file.path))
        reading.sources[f"“{line}”, the caption for all"].append(file.name)
        return [line]
    if file.folder_caption and names(file.folder_caption, word):
        reading.sources[f"“{file.folder_caption}”, by the folder's name"].append(file.name)
        return [file.folder_caption]
    if word is None and any(table.faults for table, _ in file.tables):
        return []  # one of the lines that cannot be read may be its caption
    if word is None:
        wanted = file.path.with_suffix(TEXT_SUFFIXES[0]).name
        raise DataError(f"{file.path} has no caption; write one into {wanted} beside it, or give {missing} for all pictures")
    line = caption_for_all(default_caption, word, str(file.path))
    reading.sources[f"“{line}”, as they have none of their own"].append(file.name)
    return [line]
