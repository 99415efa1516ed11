"""Draws docs/images/icon.png and banner.png: a dictionary of atoms of which a few are lit. `python -m sparsedict.tools.make_icons`"""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
NIGHT, UNLIT = (22, 24, 38), (52, 57, 82)
LIT = [(255, 176, 59), (255, 107, 107), (92, 214, 182), (120, 160, 255)]
DETAIL = 4  # drawn this many times larger, then shrunk: smooth edges


def grid(draw: ImageDraw.ImageDraw, corner: tuple[float, float], step: float, columns: int, rows: int, lit: dict[tuple[int, int], int]) -> None:
    """Atoms as circles; `lit` gives the colour's number by (column, row)."""
    for column in range(columns):
        for row in range(rows):
            x, y = corner[0] + (column + 0.5) * step, corner[1] + (row + 0.5) * step
            colour = lit.get((column, row))
            radius = step * (0.2 if colour is None else 0.38)
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=UNLIT if colour is None else LIT[colour])


def icon(size: int = 400) -> Image.Image:
    large = size * DETAIL
    image = Image.new("RGBA", (large, large), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((0, 0, large - 1, large - 1), radius=large // 6, fill=NIGHT)
    margin = large * 0.12
    grid(draw, (margin, margin), (large - 2 * margin) / 5, 5, 5, {(1, 0): 0, (3, 1): 2, (0, 2): 3, (2, 3): 1, (4, 4): 0})
    return image.resize((size, size), Image.Resampling.LANCZOS)


def banner(width: int = 1680, height: int = 720) -> Image.Image:
    image = Image.new("RGB", (width * DETAIL, height * DETAIL), NIGHT)
    draw = ImageDraw.Draw(image)
    generator = random.Random(7)
    cells = [(column, row) for column in range(21) for row in range(9)]
    grid(draw, (0, 0), width * DETAIL / 21, 21, 9, {cell: generator.randrange(len(LIT)) for cell in generator.sample(cells, 19)})
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    draw.rectangle((320, 240, 1360, 480), fill=NIGHT)
    draw.text((width / 2, 330), "SparseDict", font=ImageFont.load_default(120), fill="white", anchor="mm")
    draw.text((width / 2, 425), "adapters that you can look into", font=ImageFont.load_default(44), fill=(190, 195, 220), anchor="mm")
    return image


def main() -> None:
    icon().save(IMAGES / "icon.png", optimize=True)
    banner().quantize(128).save(IMAGES / "banner.png", optimize=True)


if __name__ == "__main__":
    main()
