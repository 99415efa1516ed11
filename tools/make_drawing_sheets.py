"""Draw the world's sheets, one picture a style, from icon sets of the npm registry. Needs the package resvg-py.

    npm pack @iconify-json/noto @iconify-json/fluent-emoji-flat @iconify-json/fluent-emoji-high-contrast
    (unpack each into ICONS/<set>/)
    python -m sparsedict.tools.make_drawing_sheets ICONS
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from ..demo_model.sheets import CELL, COLUMNS, FOLDER
from ..demo_model.subjects import CONCEPTS, STYLES, SUBJECTS

INK = "#1d2430"  # what a set of one colour is drawn in


def draw_icon(icons: dict[str, Any], name: str) -> Image.Image:
    """One icon as (CELL, CELL) RGBA."""
    import resvg_py

    icon = icons["icons"][name]
    width, height = icon.get("width", icons["width"]), icon.get("height", icons["height"])
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" color="{INK}">{icon["body"]}</svg>'
    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=CELL, height=CELL)))).convert("RGBA")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("icons", type=Path, help="the folder with the unpacked icon sets")
    arguments = parser.parse_args()
    names = [*SUBJECTS, *CONCEPTS]
    FOLDER.mkdir(exist_ok=True)
    for style, source in STYLES.items():
        icons = json.loads((arguments.icons / source / "icons.json").read_text())
        sheet = Image.new("RGBA", (COLUMNS * CELL, -(-len(names) // COLUMNS) * CELL))
        for index, name in enumerate(names):
            sheet.paste(draw_icon(icons, name), ((index % COLUMNS) * CELL, (index // COLUMNS) * CELL))
        sheet.save(FOLDER / f"{style}.webp", lossless=True, method=6, exact=False)


if __name__ == "__main__":
    main()
