"""Training pictures with their captions, and the sizes at which they are trained.

Pictures keep their shape: each goes to the bucket (a size of about the wanted area) whose aspect is nearest to its own.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..sparsedict_core.errors import DataError
from .images import PICTURE_SUFFIXES, is_picture, read_image

DEFAULT_CAPTION = "a photo of {}"
SLOTS = ("{}", "{word}")  # where a caption takes the placeholder word

LARGEST_ASPECT = 4.0  # longer pictures are cropped: base models have hardly seen any
AREA_TOLERANCE = 0.2  # how far a bucket's area may be from the wanted one, as a share; a coarse `multiple` hits it seldom
SPARE_AREA = 4.0  # pictures are kept at this many times the training area, so that any bucket still only shrinks them


@dataclass(frozen=True)
class ConceptItem:
    """One picture with the captions that describe it; training draws one of them at a time."""

    image: Tensor  # (3, H, W) float32 in [-1, 1], on the CPU
    captions: list[str]
    name: str
    latent: Tensor | None = None  # (c, h, w) as the base sees it: taken instead of the picture


@dataclass(frozen=True)
class Bucket:
    """Pictures trained at the same size, so that they can share a batch."""

    size: tuple[int, int]  # (H, W) in pixels
    indices: list[int]  # into ConceptData.items, ascending


@dataclass(frozen=True)
class ConceptData:
    """What is learned: pictures and their captions, in a fixed order."""

    items: list[ConceptItem]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> ConceptItem:
        return self.items[index]

    def __iter__(self) -> Iterator[ConceptItem]:
        return iter(self.items)

    @classmethod
    def from_folder(
        cls, folder: Path | str, caption: str | None = None, placeholder: str | None = None, resolution: int | None = None,
        missing: str = "a caption or a placeholder word",
    ) -> ConceptData:
        """The pictures directly in a folder, by name, each with the captions of the .txt file of the same name, one a line.

        A picture without .txt gets `caption`, or "a photo of {}" when only a placeholder is given. `{}` or `{word}` in any
        caption stands for the placeholder. With `resolution`, much larger pictures are shrunk at once to save memory; `missing` says
        what to give where there is no caption.
        Raises DataError, naming the file, for whatever cannot be used.
        """
        folder = Path(folder)
        files = list_files(folder)
        pictures = [path for path in files if is_picture(path)]
        if not pictures:
            endings = " ".join(sorted(PICTURE_SUFFIXES))
            raise DataError(f"{folder} has no picture in it; put the training pictures directly into this folder ({endings})")
        if placeholder is not None and not placeholder.strip():
            raise DataError(f"the placeholder word for {folder} is empty; give a word that stands for the concept")
        if caption is None and placeholder is not None:
            caption = DEFAULT_CAPTION
        texts = {path.stem: path for path in files if path.suffix.lower() == ".txt"}
        # All captions before the first picture: decoding takes long, and a forgotten caption should not be found after it.
        captions = [captions_of(path, texts.get(path.stem), caption, placeholder, missing) for path in pictures]
        items = []
        for path, lines in zip(pictures, captions):
            image = read_image(path)
            if resolution is not None:
                image = shrink_to_area(image, SPARE_AREA * resolution * resolution)
            items.append(ConceptItem(image, lines, path.name))
        return cls(items)

    @classmethod
    def from_tensors(cls, images: Tensor | Sequence[Tensor], captions: str | Sequence[str] | Sequence[Sequence[str]]) -> ConceptData:
        """Images (N, 3, H, W), or N of (3, H, W) and any sizes, in [-1, 1]; a caption for all, one each, or several each."""
        if len(images) == 0:
            raise DataError("there is no training image; give at least one")
        rows: list[str | Sequence[str]] = [captions] * len(images) if isinstance(captions, str) else list(captions)
        if len(rows) != len(images):
            raise DataError(f"there are {len(images)} images but {len(rows)} captions; give one caption, or a list of them, for each image")
        items = []
        for number, (image, row) in enumerate(zip(images, rows)):
            name = f"image {number}"
            lines = [row.strip()] if isinstance(row, str) else [line.strip() for line in row]
            if not lines or not all(lines):
                raise DataError(f"{name} has an empty caption; say what is on it")
            items.append(ConceptItem(checked_image(image, name), lines, name))
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
            digest.update(struct.pack("<q", len(item.captions)))
            for caption in item.captions:
                text = caption.encode("utf-8")
                digest.update(struct.pack("<q", len(text)) + text)
        return digest.hexdigest()


def list_files(folder: Path) -> list[Path]:
    """The files directly in a folder, by name."""
    if folder.is_file():
        raise DataError(f"{folder} is a file; give the folder that holds the training pictures")
    if not folder.is_dir():
        raise DataError(f"the folder {folder} does not exist; check its path")
    try:
        return sorted((path for path in folder.iterdir() if path.is_file()), key=lambda path: path.name)
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be listed ({error.strerror}); check its permissions") from error


def captions_of(picture: Path, text: Path | None, caption: str | None, placeholder: str | None, missing: str) -> list[str]:
    """A picture's captions: its .txt file's, else the one for all."""
    if text is not None:
        return [filled(line, placeholder, str(text)) for line in read_captions(text)]
    if caption is None:
        wanted = picture.with_suffix(".txt")
        raise DataError(f"{picture} has no caption; write one into {wanted.name} beside it, or give {missing} for all pictures")
    if not caption.strip():
        raise DataError(f"the caption for {picture} is empty; say what is on the picture")
    line = filled(caption.strip(), placeholder, f"the caption for {picture}")
    if placeholder is not None and placeholder.strip() not in line:
        raise DataError(f"the caption {caption!r} for {picture} does not name {placeholder!r}; put {{}} where the word belongs")
    return [line]


def read_captions(path: Path) -> list[str]:
    """The lines of a caption file that say something."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows' editor puts a mark at the start that is no part of the caption
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text; save the caption again as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError(f"the caption file {path} is empty; write what is on the picture, or remove the file to use the caption for all")
    return lines


def filled(caption: str, placeholder: str | None, source: str) -> str:
    """The caption with the placeholder word in its slots; not str.format, as other braces are plain text."""
    for slot in SLOTS:
        if slot in caption:
            if placeholder is None:
                raise DataError(f"{source} has {slot} in it but there is no placeholder word; give one, or write the word out")
            caption = caption.replace(slot, placeholder.strip())
    return caption


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
    """(3, h, w) → a part of it of the same shape, with 75 to 100 % of its sides, anywhere."""
    height, width = image.shape[1:]
    share, down, right = torch.rand(3, generator=generator).tolist()
    kept_height, kept_width = (max(1, round(side * (0.75 + 0.25 * share))) for side in (height, width))
    top, left = round(down * (height - kept_height)), round(right * (width - kept_width))
    return image[:, top : top + kept_height, left : left + kept_width]


def shrink_to_area(image: Tensor, area: float) -> Tensor:
    """(3, h, w) → the same picture with at most about `area` pixels, itself if it is no larger."""
    height, width = image.shape[1:]
    if height * width <= area:
        return image
    scale = math.sqrt(area / (height * width))
    return resized(image, (max(1, round(height * scale)), max(1, round(width * scale))))


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(3, h, w) → (3, H, W), bicubic and antialiased."""
    if tuple(image.shape[1:]) == tuple(size):
        return image.clone()
    # Bicubic overshoots at sharp edges, out of the range that an image encoder knows.
    return F.interpolate(image[None], size=size, mode="bicubic", align_corners=False, antialias=True)[0].clamp(-1, 1)
