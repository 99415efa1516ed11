"""Draw the demo's training images, with captions beside them: a concept (5), one picture to edit, a style (6).

    python -m sparsedict.tools.make_demo_images
"""

from __future__ import annotations

import random
from pathlib import Path

from torch import Tensor

from ..demo_model.glyphs import GLYPHS, glyph_caption, place_glyph, render_glyph, render_styled
from ..demo_model.scenes import Scene, SceneObject, plain_caption
from ..pictures import save_image, to_image
from ..trainer.data import ConceptData, ConceptItem

FOLDER = Path(__file__).parent.parent / "demo" / "concepts"
SPOTS = (("center", "night"), ("left", "sand"), ("right", "forest"), ("top", "stone"), ("bottom", "clay"))
SEED = 1
STYLE_WORD = "fendo"
STYLE_SCENES = (
    ("circle", "red", "large", "center", "sand"),
    ("star", "yellow", "large", "left", "night"),
    ("square", "green", "small", "right", "clay"),
    ("ring", "white", "large", "top", "forest"),
    ("triangle", "orange", "small", "bottom", "sky"),
    ("cross", "pink", "large", "center", "stone"),
)


def write(image: Tensor, caption: str, folder: Path, number: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_image(to_image(image), folder / f"{number}.png")
    (folder / f"{number}.txt").write_text(caption + "\n")


def concept_data(word: str, rng: random.Random | None = None) -> ConceptData:
    """The five training pictures of any of the glyphs, as the shipped ones are drawn."""
    rng = rng or random.Random(SEED)
    images, _ = render_glyph(GLYPHS[word], [place_glyph(place, ground, rng) for place, ground in SPOTS])
    captions = [glyph_caption(word, place, ground) for place, ground in SPOTS]
    return ConceptData([ConceptItem(image, [text], f"{n}.png") for n, (image, text) in enumerate(zip(images, captions, strict=True))])


def main() -> None:
    rng = random.Random(SEED)
    for number, item in enumerate(concept_data("zorp", rng)):
        write(item.image, item.captions[0], FOLDER / "zorp", number)
    single, _ = render_glyph(GLYPHS["blick"], [place_glyph("center", "sky", rng)])
    write(single[0], glyph_caption("blick", "center", "sky"), FOLDER / "blick-edit", 0)
    scenes = [Scene((SceneObject(*fields[:4]),), fields[4]) for fields in STYLE_SCENES]
    styled = render_styled(scenes, seed=3)
    for number, scene in enumerate(scenes):
        caption = plain_caption(scene.objects[0], scene.background)
        write(styled[number], f"{caption} {STYLE_WORD}", FOLDER / STYLE_WORD, number)


if __name__ == "__main__":
    main()
