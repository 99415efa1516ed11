"""report.html: one self-contained file, from what the study measured and drew."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from ..demo_model.concepts import Prompt
from ..demo_model.scene import PLACES
from ..pictures import image_strip, importance_map, save_image, to_image, training_curves
from ..pictures.charts import figure, rendered
from ..pictures.overlays import overlay
from .findings import CONCEPT, SECOND, STYLE, Study

SIDE = 288
EDIT_KINDS = {"ground": "another ground", "pattern": "a pattern", "style": "a style", "place": "another place", "size": "another size", "second": "something beside it"}


def source(image: Image.Image, **how: Any) -> str:
    """A picture as a data address."""
    stream = io.BytesIO()
    image.save(stream, "WEBP", **how)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def large(image: Image.Image) -> str:
    """A picture of 96 pixels, enlarged."""
    return source(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), quality=90)


def labelled(labels: Sequence[str], images: Any) -> list[tuple[str, str]]:
    return [(label, large(to_image(image))) for label, image in zip(labels, images, strict=False)]


def save_first_picture(study: Study) -> Path:
    """concept.png: the base above, the adapter below, for the same noise; there long before the page is."""
    shown, picked = study.pictures, picked_prompts(study)
    path = study.out / "concept.png"
    save_image(image_strip([to_image(images[i]) for images in (study.base_concept[2], shown["concept"]) for i in picked], columns=len(picked), side=192), path)
    return path


def picked_prompts(study: Study) -> list[int]:
    """Every place, on one ground after another."""
    count = len(study.plan.grounds)
    return [number * count + number % count for number in range(len(PLACES))]


def slider_plot(report: dict[str, Any]) -> Image.Image:
    """Concept fidelity by share of atoms: the slider, and both ways of pruning."""
    drawing = figure(7, 3)
    axes = drawing.subplots()
    axes.plot([100 * r["share"] for r in report["slider"]], [r["concept_fidelity"] for r in report["slider"]], "o-", label="slider, by importance")
    greedy = [r for r in report["pruning"] if r["order"] == "greedy"]
    axes.plot([100 * r["share"] for r in greedy], [r["concept_fidelity"] for r in greedy], "s--", label="pruned, greedy + refit")
    axes.set_xlabel("atoms kept, %")
    axes.set_ylabel("concept fidelity")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return rendered(drawing)


def edit_rows(study: Study) -> list[tuple[str, list[tuple[str, str]]]]:
    """By method: one prompt of each kind of edit."""
    shown = study.pictures
    prompts: list[Prompt] = shown["edit_prompts"]
    picked = [shown["edit_kinds"].index(kind) + 1 for kind in EDIT_KINDS]
    return [(name, labelled([prompts[i].short for i in picked], [images[i] for i in picked])) for name, images in shown["edit"].items()]


def write_page(study: Study) -> None:
    """Fill the template; also save the slider as a picture of its own."""
    report, shown = study.report, study.pictures
    prompts, picked = study.suite.prompts, picked_prompts(study)
    kept = [f"{row['share']:.1%}" for row in report["slider"]]
    save_image(image_strip([to_image(image) for image in shown["slider"]], kept), study.out / "slider.png")
    ours = {"parameters": report["parameters"], "train_seconds": report["train_seconds"],
            **{k: report[k] for k in ("concept_fidelity", "prompt_fidelity", "drift", "flipped")}}  # fmt: skip
    picture, fired = shown["fires"]
    picture = to_image(picture).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    context = {
        "report": report,
        "words": {"concept": CONCEPT, "second": SECOND, "style": STYLE},
        "drift_prompts": len(study.suite.others),
        "edit_kinds": EDIT_KINDS,
        "training": labelled([item.captions[0].removeprefix("a ") for item in shown["training"]], [item.image for item in shown["training"]]),
        "pairs": [
            (prompts[i].short, large(to_image(study.base_concept[2][i])), large(to_image(shown["concept"][i])), large(to_image(shown["lora"][i]))) for i in picked
        ],
        "slider": labelled(kept, shown["slider"]),
        "fires": [("the picture", source(picture, quality=90)), *((label, source(overlay(picture, where), quality=90)) for label, where in fired)],
        "plots": {
            "slider": source(slider_plot(report), lossless=True),
            "map": source(importance_map(shown["adapter"]), lossless=True),
            "training": source(training_curves(shown["log"]), lossless=True),
        },
        "methods": [("sparse dictionary", ours), ("LoRA", report["lora"]), ("LoRA + quiet term", report["lora_quiet"])],
        "edit_training": labelled(["the one picture"], [item.image for item in shown["edit_training"]]),
        "edits": edit_rows(study),
        "style_training": labelled([item.captions[0].removeprefix("a ") for item in shown["style_training"]], [item.image for item in shown["style_training"]]),
        "style_alone": labelled(shown["style_captions"][:4], shown["style_alone"]),
        "merge": labelled([f"{p.word}, {p.short}, {p.behind}" for p in shown["merge_prompts"][:5]], shown["merge"]),
        "two": labelled([f"{CONCEPT} {first.place}, {SECOND}" for first in shown["two_prompts"][:5]], shown["two_concepts"]),
        "second_training": labelled([item.captions[0].removeprefix("a ") for item in shown["second_training"]], [item.image for item in shown["second_training"]]),
    }
    environment = jinja2.Environment(loader=jinja2.PackageLoader(__package__, "templates"), autoescape=True)
    html = environment.get_template("report.html.j2").render(**context)
    (study.out / "report.html").write_text(html, encoding="utf-8")
