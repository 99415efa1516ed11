"""report.html: one self-contained file, from what the study measured and drew."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from ..pictures import image_strip, importance_map, save_image, to_image, training_curves
from ..pictures.charts import figure, rendered
from .findings import Study

SIDE = 160


def source(image: Image.Image) -> str:
    """A picture as a data address."""
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def small(tensor: Any) -> str:
    """A 64-pixel picture (3, h, w), enlarged."""
    return source(to_image(tensor).resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def labelled(labels: Sequence[str], images: Any) -> list[tuple[str, str]]:
    return [(label, small(image)) for label, image in zip(labels, images, strict=False)]


def short(caption: str) -> str:
    """What a caption asks for, without the words that all of them have."""
    return caption.removeprefix("a ").replace(" background", "").replace(" in the ", ", ").replace(" on the ", ", ").replace(" at the ", ", ").replace(" on a ", ", ")


def save_first_picture(study: Study) -> Path:
    """concept.png: the base above, the adapter below, for the same noise; there long before the page is."""
    shown, picked = study.pictures, picked_prompts(study)
    path = study.out / "concept.png"
    save_image(image_strip([to_image(shown[name][i]) for name in ("base_concept", "concept") for i in picked], columns=len(picked)), path)
    return path


def picked_prompts(study: Study) -> list[int]:
    """One of each place and background, most of them combinations that training did not show."""
    return list(range(0, len(study.suite.prompts), 4))


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


def write_page(study: Study) -> None:
    """Fill the template; also save the slider as a picture of its own."""
    report, shown = study.report, study.pictures
    prompts = study.suite.prompts
    picked = picked_prompts(study)
    pairs = []
    for index in picked:
        pairs += [("base", small(shown["base_concept"][index])), (short(prompts[index][0]), small(shown["concept"][index]))]
    kept = [f"{row['share']:.1%}" for row in report["slider"]]
    save_image(image_strip([to_image(image) for image in shown["slider"]], kept), study.out / "slider.png")
    ours = {"parameters": report["parameters"], "train_seconds": report["train_seconds"],
            **{k: report[k] for k in ("concept_fidelity", "prompt_fidelity", "drift", "flipped")}}  # fmt: skip
    edit_prompts = [short(p[0]).removeprefix("blick, ") for p in shown["edit_prompts"]]
    edit_picked = [0, 1, 2, 3, 4, 15, 19, 22, 25]
    context = {
        "report": report,
        "drift_prompts": len(study.suite.others),
        "training": [(short(item.captions[0]), small(item.image)) for item in shown["training"]],
        "pairs": pairs,
        "slider": labelled(kept, shown["slider"]),
        "plots": {
            "slider": source(slider_plot(report)),
            "map": source(importance_map(shown["adapter"])),
            "training": source(training_curves(shown["log"])),
        },
        "methods": [("sparse dictionary", ours), ("LoRA", report["lora"]), ("LoRA + quiet term", report["lora_quiet"])],
        "loras": [(f"LoRA: {short(prompts[i][0])}", small(shown["lora"][i])) for i in picked[:4]]
        + [(f"LoRA + quiet: {short(prompts[i][0])}", small(shown["lora_quiet"][i])) for i in picked[:4]],
        "edit_training": [(short(item.captions[0]), small(item.image)) for item in shown["edit_training"]],
        "edits": [
            (name, labelled([edit_prompts[i] for i in edit_picked], [images[i] for i in edit_picked])) for name, images in shown["edit"].items()
        ],
        "merge": [("style alone", small(image)) for image in shown["style_alone"][:3]]
        + [("concept alone", small(image)) for image in shown["merge_concept"][:3]]
        + [("merged: " + short(text), small(image)) for text, image in zip(shown["merge_captions"][:5], shown["merge"], strict=False)],
    }
    environment = jinja2.Environment(loader=jinja2.PackageLoader(__package__, "templates"), autoescape=True)
    html = environment.get_template("report.html.j2").render(**context)
    (study.out / "report.html").write_text(html, encoding="utf-8")
