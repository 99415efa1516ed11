"""Labelled rows of images, animations, and writing them so that a failed write leaves nothing behind."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

PAPER = (255, 255, 255)
INK = (40, 40, 40)
DARK, ON_DARK = "#1e1e1e", "#d8d8d8"  # `for_node`: as most graphs are
GAP = 6  # pixels between the images of a strip
SMALLEST_SIDE = 128  # smaller images are enlarged in strips, or their labels would not fit
MOST_LETTERS, MOST_LINES = 4000, 12  # of a label


def to_image(tensor: Any) -> Image.Image:
    """(3, H, W) in [-1, 1], as a backend decodes it → PIL."""
    from PIL import Image

    array = tensor.detach().float().clamp(-1, 1).add(1).mul(127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(array)


def to_images(tensor: Any) -> list[Image.Image]:
    """(B, 3, H, W) in [-1, 1] → PIL images."""
    return [to_image(row) for row in tensor]


def font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size=size)


def enlarged(image: Image.Image, side: int) -> Image.Image:
    """The image at least `side` pixels wide, by a whole factor, so that a pixel stays a sharp square."""
    from PIL import Image

    factor = max(1, -(-side // image.width))
    if factor == 1:
        return image
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def fitted(text: str, width: int, letters: Any) -> str:
    """The text, cut with an ellipsis where it is wider than `width` pixels."""
    from ..sparsedict_core.shown_text import escaped

    text = escaped(text[: max(1, width)])  # no letter is narrower than a pixel
    if letters.getlength(text) <= width:
        return text
    while text and letters.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def labelled(image: Image.Image, label: str, side: int = SMALLEST_SIDE, for_node: bool = False) -> Image.Image:
    """The image with its label in a band below it; `for_node` on dark, in letters that are read where a node shows it smaller."""
    from PIL import Image, ImageDraw

    image = enlarged(image.convert("RGB"), side)
    paper, ink = (DARK, ON_DARK) if for_node else (PAPER, INK)
    size = max(14 if for_node else 11, image.width // 14)
    letters = font(size)
    lines = label[:MOST_LETTERS].split("\n")[:MOST_LINES]
    band = round(size * 1.35) * len(lines) + 4
    page = Image.new("RGB", (image.width, image.height + band), paper)
    page.paste(image, (0, 0))
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        line = fitted(line, image.width - 2, letters)
        y = image.height + 2 + number * round(size * 1.35)
        draw.text(((image.width - letters.getlength(line)) / 2, y), line, fill=ink, font=letters)
    return page


def image_strip(
    images: Sequence[Image.Image], labels: Sequence[str] | None = None, columns: int | None = None, side: int = SMALLEST_SIDE, for_node: bool = False
) -> Image.Image:
    """A row of images (or a grid, with `columns`), each with its label below."""
    from PIL import Image

    if not images:
        raise ValueError("a strip needs at least one image")
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"{len(images)} images but {len(labels)} labels")
    cells = [labelled(image, label, side, for_node) if label else enlarged(image.convert("RGB"), side) for image, label in zip(images, labels or [""] * len(images))]
    columns = min(columns or len(cells), len(cells))
    rows = -(-len(cells) // columns)
    width, height = max(cell.width for cell in cells), max(cell.height for cell in cells)
    page = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), DARK if for_node else PAPER)
    for number, cell in enumerate(cells):
        page.paste(cell, ((number % columns) * (width + GAP), (number // columns) * (height + GAP)))
    return page


def save_image(image: Image.Image, path: Path, **options: Any) -> Path:
    """By the ending as JPEG, WebP, GIF or else PNG; a full disk or a Ctrl-C leaves no half picture. Raises FileFormatError."""
    from ..sparsedict_core.atomic_write import write_atomically

    path = Path(path)
    formats = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".gif": "GIF"}
    data = io.BytesIO()
    image.save(data, format=formats.get(path.suffix.lower(), "PNG"), **options)
    write_atomically(path, data.getvalue())
    return path


def gif(images: Sequence[Image.Image], path: Path, labels: Sequence[str] | None = None, seconds: float = 0.5, side: int = 256) -> Path:
    """An endless animation, the last frame held for longer."""
    first, options = _frames(images, labels, seconds, side)
    return save_image(first, path, **options)


def gif_bytes(images: Sequence[Image.Image], labels: Sequence[str] | None = None, seconds: float = 0.5, side: int = 256) -> bytes:
    """As `gif`, for a browser."""
    import io

    first, options = _frames(images, labels, seconds, side)
    buffer = io.BytesIO()
    first.save(buffer, format="GIF", **options)
    return buffer.getvalue()


def _frames(images: Sequence[Image.Image], labels: Sequence[str] | None, seconds: float, side: int) -> tuple[Image.Image, dict[str, Any]]:
    """The first frame, and what Pillow wants beside it."""
    from PIL import Image

    labels = labels or [""] * len(images)
    frames = [labelled(image, label, side) if label else enlarged(image.convert("RGB"), side) for image, label in zip(images, labels)]
    # One palette for all frames, from the last (the full concept): per-frame palettes make flat backgrounds flicker.
    palette = image_strip([frames[0], frames[-1]]).quantize(256, method=Image.Quantize.MEDIANCUT)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [round(seconds * 1000)] * (len(frames) - 1) + [round(seconds * 3000)]
    return frames[0], {"save_all": True, "append_images": frames[1:], "duration": times, "loop": 0}
