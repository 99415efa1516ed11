"""The concept in a style, and with a second concept: each trained alone, then put into one file."""

from __future__ import annotations

import random
from dataclasses import replace

from torch import Tensor

from ..demo_model.concepts import STYLE as STYLE_NAME
from ..demo_model.concepts import Prompt
from ..demo_model.pipeline import make_noise
from ..demo_model.scene import GROUNDS, PLACES, Scene, plain_caption, random_scene
from ..evaluation.concept import ConceptMeter, style_strength
from ..sparsedict_core import SparseAdapter, compose, save
from ..trainer import ConceptData
from .findings import CONCEPT, CONCEPTS, SECOND, STYLE, Study, settings, trained

STYLE_SCENES = 12  # that the style's training pictures don't show
PAIR_PLACES = (("left", "right"), ("right", "left"), ("top", "bottom"), ("bottom", "top"))


def style_stage(study: Study) -> None:
    """Into `style` and `merge` of the report."""
    prompts = [Prompt(CONCEPT, place, ground) for place, ground in zip(PLACES, GROUNDS, strict=False)] * 3
    styled = [replace(prompt, behind=STYLE) for prompt in prompts]
    noise, rng = make_noise(len(prompts), 77), random.Random(8)
    scenes = [f"{unstyled(random_scene(rng, two=0))} {STYLE}" for _ in range(STYLE_SCENES)]
    with study.clock.stage("training a style, merging it with the concept", 30):
        style = trained(settings(study, STYLE, "style", 0), study, CONCEPTS / STYLE).adapter
        concept, strengths = study.pictures["adapter"], study.plan.merge_strengths
        both = compose([(CONCEPT, concept, strengths[0]), (STYLE, style, strengths[1])])
        save(both, study.out / "merge.safetensors", overwrite=True, moments=False)
        style_alone = pictures(study, style, scenes, make_noise(len(scenes), 78))
        alone, merged = pictures(study, concept, captions(prompts), noise), pictures(study, both, captions(styled), noise)
    # A concept in another style is no longer drawn as its training pictures are: what is kept of it is what the reader still knows.
    kept = [known(study, images) for images in (alone, merged)]
    drawn = [float(style_strength(images, STYLE_NAME, study.suite.reader).mean()) for images in (style_alone, merged)]
    study.report["style"] = {"strength": drawn[0]}
    study.report["merge"] = {
        "concept_alone": kept[0], "concept_in_merge": kept[1], "style_alone": drawn[0], "style_in_merge": drawn[1],
        "concept_kept": kept[1] / max(kept[0], 1e-9), "style_kept": drawn[1] / max(drawn[0], 1e-9), "strengths": list(strengths),
    }  # fmt: skip
    study.pictures |= {"merge": merged, "merge_prompts": styled, "style_alone": style_alone, "style_captions": scenes, "style_training": ConceptData.from_folder(CONCEPTS / STYLE)}


def two_concepts_stage(study: Study) -> None:
    """Into `two_concepts` of the report: each concept's fidelity alone, and in pictures that ask for both."""
    words = CONCEPT, SECOND
    sides = [
        [Prompt(word, places[number], ground, size="medium") for places, ground in zip(PAIR_PLACES, GROUNDS, strict=False)] * 2
        for number, word in enumerate(words)
    ]
    asked = [" and ".join([first.caption.split(" on a ")[0], second.caption]) for first, second in zip(*sides, strict=True)]
    noise, meters = make_noise(len(asked), 79), [study.suite.meter, ConceptMeter(SECOND)]
    with study.clock.stage("a second concept, both in one file and in one picture", 30):
        second = trained(settings(study, SECOND, "concept", 0), study, CONCEPTS / SECOND).adapter
        members = study.pictures["adapter"], second
        # Plainly: healed (trainer/merge.py), the second keeps less of itself where both are asked for, on this base.
        both = compose([(word, adapter, 1.0) for word, adapter in zip(words, members, strict=True)])
        save(both, study.out / "two-concepts.safetensors", overwrite=True, moments=False)
        alone = [pictures(study, adapter, captions(prompts), noise) for adapter, prompts in zip(members, sides, strict=True)]
        together = pictures(study, both, asked, noise)
    fidelity = [
        [float(meter.read(images, prompts).fidelity.mean()) for images in (single, together)]
        for meter, prompts, single in zip(meters, sides, alone, strict=True)
    ]
    study.report["two_concepts"] = {word: {"alone": one[0], "together": one[1]} for word, one in zip(words, fidelity, strict=True)}
    study.pictures |= {"two_concepts": together, "two_prompts": sides[0], "second_training": ConceptData.from_folder(CONCEPTS / SECOND)}


def unstyled(scene: Scene) -> str:
    return plain_caption(scene).replace(f" {scene.stickers[0].style} ", " ")


def captions(prompts: list[Prompt]) -> list[str]:
    return [prompt.caption for prompt in prompts]


def pictures(study: Study, adapter: SparseAdapter, texts: list[str], noise: Tensor) -> Tensor:
    with adapter.attach(study.backend.denoiser, component="transformer"):
        return study.suite.generate(texts, noise)


def known(study: Study, images: Tensor) -> float:
    """How sure the reader is that the concept's drawing is in pictures, in whatever style: mean of 0 to 1."""
    return float(study.suite.subject_probability(images).mean())
