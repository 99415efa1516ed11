"""What is trained on, in lines for people: what of a folder is used and how, and what is not. Said before the first step."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from ..sparsedict_core.shown_text import escaped
from .backends.base import Backend
from .caption_limits import caption_limits
from .captions import counted, names
from .data import Bucket, ConceptData
from .folder_reading import MASKED, FolderReading, alike

SHOWN = 6  # names in a line
ENLARGED = 1.05  # times, from where it is said
VERY_SMALL = 2.0  # times
CROPPED = 0.1  # share of a picture that the crop to its bucket takes, from where it is said


def summary(
    data: ConceptData, buckets: Sequence[Bucket] = (), backend: Backend | None = None, word: str | None = None, what: str = "training pictures"
) -> list[str]:
    """Lines of text; `buckets` are the sizes that the pictures are trained at, where that is known."""
    reading = data.reading
    lines = [headline(data, what), *([] if reading is None else taken(reading, data))]
    if buckets:
        lines.append("trained at " + ", ".join(f"{bucket.size[1]}×{bucket.size[0]} ({counted(len(bucket.indices), 'picture')})" for bucket in buckets))
    lines += [*about_sizes(data, buckets), *about_captions(data, backend, word), *about_copies(data)]
    if reading is not None:
        lines += not_used(reading)
    return [escaped(lines[0]), *(f"  {escaped(line)}" for line in lines[1:])]


def headline(data: ConceptData, what: str) -> str:
    if data.reading is None:
        return f"{what}: {len(data)}"
    left_out = len(data.reading.left_out)
    return f"{what}: {len(data)} in {data.reading.folder.path}" + (f", {left_out} more left out" if left_out else "")


def taken(reading: FolderReading, data: ConceptData) -> list[str]:
    """Captions, repeats and masks."""
    lines, count = [], len(data)
    for source, pictures in reading.sources.items():
        lines.append(f"captions {source}: {'all' if len(pictures) == count else listed(pictures)}")
    lines += [f"{counted(len(names), 'caption file')} of several lines: {how}: {listed(names)}" for how, names in reading.several.items()]
    read = {item.name for item in data}
    repeats = Counter(picture.repeats for picture in reading.folder.pictures if picture.name in read)
    if len(repeats) > 1:
        lines.append("repeats by folder: " + ", ".join(f"{counted(number, 'picture')} {times} times" for times, number in sorted(repeats.items())))
    masked = reading.notes.get(MASKED, [])
    if masked:
        lines.append(f"masks: {MASKED} for {'all' if len(masked) == count else listed(masked)}")
    return lines


def about_sizes(data: ConceptData, buckets: Sequence[Bucket]) -> list[str]:
    """Pictures that are blown up, and those that lose a part."""
    enlarged: list[str] = []
    small: list[str] = []
    cropped: list[str] = []
    for bucket in buckets:
        for index in bucket.indices:
            item = data[index]
            if item.latent is not None:
                continue
            height, width = data.reading.sizes[index] if data.reading else item.image.shape[1:]
            times = max(bucket.size[0] / height, bucket.size[1] / width)
            lost = 1 - (bucket.size[0] / times) * (bucket.size[1] / times) / (height * width)
            if times >= ENLARGED:
                (small if times >= VERY_SMALL else enlarged).append(f"{item.name} ({width}×{height}, {times:.1f} times)")
            if lost >= CROPPED:
                cropped.append(f"{item.name} ({width}×{height} loses {lost:.0%})")
    lines = [("very small, so blurred when enlarged", small), ("enlarged", enlarged), ("cropped at the sides", cropped)]
    return [f"{what}: {listed(pictures)}" for what, pictures in lines if pictures]


def about_captions(data: ConceptData, backend: Backend | None, word: str | None) -> list[str]:
    """Captions that do not name the word, and what the text encoders do not read."""
    of = data.by_caption()
    wordless = [item.name for item in data if not all(names(caption, word) for caption in item.captions)]
    lines = [f"without the word {word}: {listed(wordless)}"] if wordless else []
    limits = caption_limits(backend, of)
    cuts: dict[str, list[str]] = defaultdict(list)
    for cut in limits.cuts:
        cuts[f"cut by {cut.encoder}, which reads {cut.limit} tokens"] += [f"{name} ({cut.tokens}, from “{cut.unread} …” on)" for name in of[cut.caption]]
    lines += [f"{how}: {listed(pictures)}" for how, pictures in cuts.items()]
    for group in limits.equal:
        pictures = [name for caption in group for name in of[caption]]
        lines.append(f"the same to the text encoders, as their captions differ only in what is cut: {listed(pictures)}")
    return lines


def about_copies(data: ConceptData) -> list[str]:
    """Pictures that are there twice."""
    copies: dict[str, list[str]] = defaultdict(list)
    for item in data:
        pixels = item.image if item.latent is None else item.latent
        copies[hashlib.sha256(pixels.contiguous().numpy().tobytes()).hexdigest()].append(item.name)
    return [f"the same picture: {listed(same)}" for same in copies.values() if len(same) > 1]


def not_used(reading: FolderReading) -> list[str]:
    """What was left out, or read with a doubt."""
    folder = reading.folder
    lines = [f"left out: {fault}" for fault in alike(reading.left_out)]
    lines += [f"{note}: {listed(pictures)}" for note, pictures in reading.notes.items() if note != MASKED]
    for table in folder.tables:
        if table.unused:
            lines.append(f"named in {table.path.name} but not there: {listed(table.unused)}")
    if folder.lone_texts:
        lines.append(f"caption files without a picture: {listed(folder.lone_texts)}")
    if folder.lone_masks:
        lines.append(f"masks without a picture: {listed(folder.lone_masks)}")
    if folder.ignored:
        lines.append("other files, not used: " + ", ".join(f"{number} {kind}" for kind, number in sorted(folder.ignored.items())))
    if folder.folders:
        lines.append("sub-folders, not read: " + listed(f"{name} ({counted(number, 'picture')})" for name, number in folder.folders.items()))
    return lines


def listed(given: Iterable[str]) -> str:
    """`a.png, b.png and 3 more`"""
    shown = list(dict.fromkeys(given))
    return ", ".join(shown[:SHOWN]) + (f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "")
