"""Training pictures with their captions, and the sizes at which they are trained.

Pictures keep their shape: each goes to the bucket (a size of about the wanted area) whose aspect is nearest to its own.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..sparsedict_core.errors import DataError
from .captions import DEFAULT_CAPTION, in_one_message
from .folder_reading import FolderReading, read_pictures

LARGEST_ASPECT = 4.0  # longer pictures are cropped: base models have hardly seen any
AREA_TOLERANCE = 0.2  # how far a bucket's area may be from the wanted one, as a share; a coarse `multiple` hits it seldom
SPARE_AREA = 2.0  # pictures are kept at this many times the training area, so that any bucket, and most crops, still only shrink them


@dataclass(frozen=True)
class ConceptItem:
    """One picture with the captions that describe it; training draws one of them at a time."""

    image: Tensor  # (3, H, W) float32 in [-1, 1], on the CPU
    captions: list[str]
    name: str
    latent: Tensor | None = None  # (c, h, w) as the base sees it: taken instead of the picture
    mask: Tensor | None = None  # (1, H, W) from 0 to 1: where the loss counts
    repeats: int = 1  # how often it is drawn, beside the others


@dataclass(frozen=True)
class Bucket:
    """Pictures trained at the same size, so that they can share a batch."""

    size: tuple[int, int]  # (H, W) in pixels
    indices: list[int]  # into ConceptData.items, ascending


@dataclass(frozen=True)
class ConceptData:
    """What is learned: pictures and their captions, in a fixed order."""

    items: list[ConceptItem]
    reading: FolderReading | None = None  # what was found where they were read from a folder

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> ConceptItem:
        return self.items[index]

    def __iter__(self) -> Iterator[ConceptItem]:
        return iter(self.items)

    @classmethod
    def from_folder(
        cls, folder: Path | str, caption: str | None = None, placeholder: str | None = None, resolution: int | None = None,
        missing: str = "a caption or a placeholder word", default_caption: str = DEFAULT_CAPTION, masks: str = "files",
        skip_unreadable: bool = False, refused: Callable[[ConceptData], str] | None = None,
    ) -> ConceptData:
        """The pictures in a folder, by name, each with its own captions, else `caption`, else its folder's, else `default_caption`.

        Own captions are those of the .txt or .caption file of the same name, metadata.jsonl, metadata.csv or kohya's metadata .json;
        `{}`, `{word}` and `[trigger]` in any caption stand for the placeholder. Sub-folders named as `10_zorp dog` are read too.
        With `resolution`, much larger pictures are shrunk while they are decoded; `masks` is one of `masks.MASKS`; `missing` says what
        to give where there is no caption. Raises DataError, naming all files that cannot be used and what is `refused` of the others, or
        leaves the pictures among them out with `skip_unreadable`; what was done is in `reading`.
        """
        area = math.inf if resolution is None else SPARE_AREA * resolution * resolution
        read, reading = read_pictures(Path(folder), caption, placeholder, missing, default_caption, area, masks, skip_unreadable)
        data = cls([ConceptItem(p.image, p.captions, p.name, None, p.mask, p.repeats) for p in read], reading)
        if reading.faults:
            more = refused(data) if refused is not None else ""
            raise DataError(in_one_message([*reading.faults, *([more] if more else [])]))
        return data

    @classmethod
    def from_tensors(
        cls, images: Tensor | Sequence[Tensor], captions: str | Sequence[str] | Sequence[Sequence[str]], masks: Sequence[Tensor] | None = None
    ) -> ConceptData:
        """Images (N, 3, H, W), or N of (3, H, W) and any sizes, in [-1, 1]; a caption for all, one each, or several each. Masks (1, H, W) of
        each image's size from 0 to 1, where the loss counts; one that is white all over counts as none."""
        if len(images) == 0:
            raise DataError("there is no training image; give at least one")
        rows: list[str | Sequence[str]] = [captions] * len(images) if isinstance(captions, str) else list(captions)
        if len(rows) != len(images):
            raise DataError(f"there are {len(images)} images but {len(rows)} captions; give one caption, or a list of them, for each image")
        if masks is not None and len(masks) != len(images):
            raise DataError(f"there are {len(images)} images but {len(masks)} masks; give one for each image")
        items = []
        for number, (image, row) in enumerate(zip(images, rows)):
            name = f"image {number}"
            lines = [row.strip()] if isinstance(row, str) else [line.strip() for line in row]
            if not lines or not all(lines):
                raise DataError(f"{name} has an empty caption; say what is on it")
            mask = None if masks is None else masks[number].float().cpu()
            if mask is not None and mask.shape != (1, *image.shape[1:]):
                raise DataError(f"{name} is {image.shape[2]}×{image.shape[1]}, its mask {mask.shape[2]}×{mask.shape[1]}; give masks of the images' sizes")
            if mask is not None and not bool((mask > 0.5).any()):
                raise DataError(f"{name} has a mask without white, so nothing of it would count; leave the mask or the image out")
            items.append(ConceptItem(checked_image(image, name), lines, name, mask=None if mask is None or bool((mask == 1).all()) else mask))
        return cls(items)

    @classmethod
    def from_latents(cls, latents: Sequence[Tensor], captions: Sequence[str]) -> ConceptData:
        """Latents (c, h, w) of any sizes, as the base sees them, and a caption for each; there are no pictures to go with them."""
        if len(latents) == 0 or len(latents) != len(captions):
            raise DataError(f"there are {len(latents)} latents and {len(captions)} captions; give at least one, and a caption for each")
        nothing = torch.zeros(3, 1, 1)
        items = []
        for number, (latent, caption) in enumerate(zip(latents, captions)):
            if latent.ndim != 3 or not bool(torch.isfinite(latent).all()):
                raise DataError(f"latent {number} has the shape {tuple(latent.shape)} or values that are not finite; give (channels, height, width)")
            items.append(ConceptItem(nothing, [caption], f"latent {number}", latent.detach().to("cpu", torch.float32).clone()))
        return cls(items)

    def by_caption(self) -> dict[str, list[str]]:
        """The names of each caption's pictures."""
        of: dict[str, list[str]] = {}
        for item in self.items:
            for caption in item.captions:
                of.setdefault(caption, []).append(item.name)
        return of

    def content_hash(self) -> str:
        """sha256 over sizes, pixels and captions in their order (names are left out): tells whether a resumed run has the same data."""
        digest = hashlib.sha256()
        for item in self.items:
            # Every part is preceded by its length, or moving a letter from one caption to the next would change nothing.
            digest.update(struct.pack("<3q", *item.image.shape))
            digest.update(item.image.contiguous().numpy().astype("<f4", copy=False).tobytes())
            if item.latent is not None:
                digest.update(struct.pack("<3q", *item.latent.shape))
                digest.update(item.latent.contiguous().numpy().astype("<f4", copy=False).tobytes())
            if item.mask is not None:
                digest.update(b"mask" + item.mask.contiguous().numpy().astype("<f4", copy=False).tobytes())
            if item.repeats != 1:
                digest.update(struct.pack("<4sq", b"many", item.repeats))
            digest.update(struct.pack("<q", len(item.captions)))
            for caption in item.captions:
                text = caption.encode("utf-8")
                digest.update(struct.pack("<q", len(text)) + text)
        return digest.hexdigest()


def checked_image(image: Tensor, name: str) -> Tensor:
    """An image as ConceptItem holds it, or a DataError: (3, H, W) float32 in [-1, 1]."""
    if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise DataError(f"{name} has the shape {tuple(image.shape)}; give (3, height, width)")
    if not image.is_floating_point():
        raise DataError(f"{name} has values of type {image.dtype}; give floats from -1 to 1")
    image = image.detach().to("cpu", torch.float32).contiguous()
    # A hair of excess is what a decoder or bfloat16 leaves; more means another range, which would train on wrong colours.
    if not bool(torch.isfinite(image).all()) or float(image.abs().max()) > 1.01:
        raise DataError(f"{name} has values outside of -1 to 1; scale its pixels to that range")
    return image.clamp(-1, 1)


def make_buckets(data: ConceptData, resolution: int, multiple: int) -> list[Bucket]:
    """Group pictures by the size they are trained at: sides are multiples of `multiple`, the area is about resolution².

    Only sizes that some picture needs, smallest height first; every picture is in exactly one bucket.
    """
    if multiple < 1 or resolution < multiple:
        raise DataError(f"a resolution of {resolution} is too small for this model; give at least {max(multiple, 1)}")
    sizes = bucket_sizes(resolution, multiple)
    members: dict[tuple[int, int], list[int]] = {}
    for index, item in enumerate(data.items):
        height, width = item.image.shape[1:]
        members.setdefault(nearest_size(sizes, height, width, resolution), []).append(index)
    return [Bucket(size, members[size]) for size in sorted(members)]


def latent_buckets(data: ConceptData, scale: int) -> list[Bucket]:
    """As `make_buckets` for latents, which keep their size: one bucket for each."""
    members: dict[tuple[int, int], list[int]] = {}
    for index, item in enumerate(data.items):
        assert item.latent is not None
        members.setdefault((item.latent.shape[1] * scale, item.latent.shape[2] * scale), []).append(index)
    return [Bucket(size, members[size]) for size in sorted(members)]


def bucket_sizes(resolution: int, multiple: int) -> list[tuple[int, int]]:
    """All (H, W) a picture may be trained at, from LARGEST_ASPECT upright to LARGEST_ASPECT lying, the square among them."""
    area = resolution * resolution
    square = max(1, math.floor(resolution / multiple + 0.5)) * multiple
    sizes = {(square, square)}
    longest = math.floor(resolution * math.sqrt(LARGEST_ASPECT) / multiple + 0.5) * multiple
    for long in range(square, longest + 1, multiple):
        short = max(1, math.floor(area / long / multiple + 0.5)) * multiple
        if long / short <= LARGEST_ASPECT and abs(short * long / area - 1) <= AREA_TOLERANCE:
            sizes |= {(long, short), (short, long)}
    return sorted(sizes)


def nearest_size(sizes: Sequence[tuple[int, int]], height: int, width: int, resolution: int) -> tuple[int, int]:
    """The size whose aspect is nearest by ratio, as twice too wide is as wrong as twice too narrow; of equals, the nearer area."""
    aspect = math.log(width / height)

    def distance(size: tuple[int, int]) -> tuple[float, float, tuple[int, int]]:
        away = abs(math.log(size[1] / size[0]) - aspect)
        return round(away, 9), abs(size[0] * size[1] - resolution * resolution), size

    return min(sizes, key=distance)


def resize_crop(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(3, h, w) → (3, H, W): the largest centred part of the wanted shape, resized with antialiasing. The same every time."""
    target_height, target_width = size
    height, width = image.shape[1:]
    # Cropping before resizing gives the same picture to within half a pixel, and a 10000×10 strip is never blown up whole.
    kept_height = min(height, max(1, round(width * target_height / target_width)))
    kept_width = min(width, max(1, round(height * target_width / target_height)))
    top, left = (height - kept_height) // 2, (width - kept_width) // 2
    return resized(image[:, top : top + kept_height, left : left + kept_width], size)


def random_part(image: Tensor, generator: torch.Generator) -> Tensor:
    """(c, h, w) → a part of it of the same shape, with 75 to 100 % of its sides, anywhere."""
    height, width = image.shape[1:]
    share, down, right = torch.rand(3, generator=generator).tolist()
    kept_height, kept_width = (max(1, round(side * (0.75 + 0.25 * share))) for side in (height, width))
    top, left = round(down * (height - kept_height)), round(right * (width - kept_width))
    return image[:, top : top + kept_height, left : left + kept_width]


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(3, h, w) → (3, H, W), bicubic and antialiased."""
    if tuple(image.shape[1:]) == tuple(size):
        return image.clone()
    # Bicubic overshoots at sharp edges, out of the range that an image encoder knows.
    return F.interpolate(image[None], size=size, mode="bicubic", align_corners=False, antialias=True)[0].clamp(-1, 1)
