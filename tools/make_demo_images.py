"""Draw the demo's training images, with captions beside them: two concepts (5 each), one picture to edit, a style (12).

    python -m sparsedict.tools.make_demo_images
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ..demo_model.concepts import STYLE, STYLE_WORD, Prompt, render
from ..demo_model.scene import Scene, Sticker, plain_caption
from ..pictures import save_image, to_image
from ..trainer.data import ConceptData, ConceptItem

FOLDER = Path(__file__).parent.parent / "demo" / "concepts"
SPOTS = (("center", "night", "large"), ("left", "sand", "large"), ("right", "forest", "medium"), ("top", "lilac", "large"), ("bottom", "clay", "medium"))
SHIPPED = ("zorp", "quax")
EDITED = Prompt("blick", "center", "sky")
SEED = 1
STYLE_SCENES = (
    ("fox", "large", "center", "sand", "plain"),
    ("rose", "large", "left", "sky", "plain"),
    ("airplane", "medium", "right", "clay", "plain"),
    ("owl", "large", "top", "mint", "plain"),
    ("bicycle", "medium", "bottom", "lilac", "plain"),
    ("cactus", "large", "center", "snow", "plain"),
    ("elephant", "large", "right", "night", "plain"),
    ("guitar", "medium", "left", "forest", "plain"),
    ("strawberry", "small", "top", "sky", "plain"),
    ("house", "large", "center", "night", "striped"),
    ("bus", "medium", "bottom", "sand", "dotted"),
    ("snail", "small", "center", "forest", "striped"),
)


def concept_data(word: str, seed: int = SEED) -> ConceptData:
    """The five training pictures of any of the concepts, as the shipped ones are drawn."""
    return drawn([Prompt(word, *spot) for spot in SPOTS], seed)


def edit_data(word: str = EDITED.word, seed: int = SEED) -> ConceptData:
    """One picture and its caption."""
    return drawn([Prompt(word, EDITED.place, EDITED.ground)], seed)


def style_data(seed: int = SEED) -> ConceptData:
    """Twelve of the base's own subjects in a style that it never drew, the style's word behind their captions."""
    scenes = [Scene((Sticker(subject, STYLE, size, place),), ground, pattern) for subject, size, place, ground, pattern in STYLE_SCENES]
    images = render(scenes, seed)[0]
    return data_of(images, [f"{plain_caption(scene).replace(f' {STYLE} ', ' ')} {STYLE_WORD}" for scene in scenes])


def drawn(prompts: list[Prompt], seed: int) -> ConceptData:
    return data_of(render([prompt.scene for prompt in prompts], seed)[0], [prompt.caption for prompt in prompts])


def data_of(images: Tensor, captions: list[str]) -> ConceptData:
    return ConceptData([ConceptItem(image, [text], f"{n}.png") for n, (image, text) in enumerate(zip(images, captions, strict=True))])


def write(data: ConceptData, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, item in enumerate(data):
        save_image(to_image(item.image), folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(item.captions[0] + "\n")


def main() -> None:
    for word in SHIPPED:
        write(concept_data(word), FOLDER / word)
    write(edit_data(), FOLDER / f"{EDITED.word}-edit")
    write(style_data(), FOLDER / STYLE_WORD)


if __name__ == "__main__":
    main()
