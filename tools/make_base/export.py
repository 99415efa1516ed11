"""The trained parts into demo_model/weights, fp16, and the model card with what was measured of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from ...demo_model.architecture import TRANSFORMER_CONFIG
from ...demo_model.codec import PATCH
from ...demo_model.pipeline import DEFAULT_GUIDANCE, DEFAULT_STEPS, WEIGHTS
from ...demo_model.scene import SIZE
from ...demo_model.subjects import CONCEPTS, SUBJECTS
from ...demo_model.vocabulary import PLACEHOLDERS, WORDS
from ...sparsedict_core.atomic_write import write_atomically
from .parts import store
from .pool import RECUT, UNNAMED
from .train_base import CAPTION_DROPOUT

CARD = WEIGHTS.parent / "MODEL_CARD.md"
KINDS = {"seen": "one drawing", "held_out_style": "held-out pair of subject and style", "two": "two drawings", "two_held_out": "held-out pair of subjects"}


def export(work: Path) -> None:
    """fp16 copies of the averaged weights, the codec and the reader, and the card. Raises ValueError, and writes nothing, where a stage has not run."""
    facts = json.loads((work / "report.json").read_text())
    lacking = [part for part in ("base", "codec", "reader", "drawn") if part not in facts]
    if lacking:
        raise ValueError(f"{work / 'report.json'} has nothing on {', '.join(lacking)}; run make_base's other stages before the export")
    state = load_file(str(work / "state.safetensors"))
    for part, prefix in (("transformer", "ema.0."), ("text_encoder", "ema.1.")):
        store({key.removeprefix(prefix): value.half() for key, value in state.items() if key.startswith(prefix)}, WEIGHTS / f"{part}.safetensors")
    for part in ("codec", "reader"):
        tensors = load_file(str(work / f"{part}.safetensors"))
        halves = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
        # The linear codec's directions must invert each other exactly enough; they are small.
        halves |= {key: tensors[key] for key in ("mean", "encode_matrix", "decode_matrix") if key in tensors}
        store(halves, WEIGHTS / f"{part}.safetensors")
    facts["bytes"] = {path.name: path.stat().st_size for path in sorted(WEIGHTS.glob("*.safetensors"))}
    write_atomically(WEIGHTS / "model_card.json", (json.dumps(facts, indent=1) + "\n").encode())
    write_atomically(CARD, card(facts).encode())


def card(facts: dict[str, Any]) -> str:
    """MODEL_CARD.md; every figure is one that `make_base` measured."""
    base, codec, reader, drawn = facts["base"], facts["codec"], facts["reader"], facts["drawn"]
    width = TRANSFORMER_CONFIG["num_attention_heads"] * TRANSFORMER_CONFIG["attention_head_dim"]
    attributes = list(reader["renders"])
    rows = []
    for name, kind in KINDS.items():
        more = [f"{drawn[name][a]:.1%}" if a in drawn[name] else "–" for a in ("cut", "both")]
        rows.append(f"| {kind} | {' | '.join([f'{drawn[name][a]:.1%}' for a in attributes] + more)} |")
    own = [f"| {name} | " + " | ".join(f"{reader[name][a]:.1%}" for a in attributes) + " |" for name in ("renders", "codec")]
    return f"""# The embedded base model

A small text-to-image diffusion transformer for drawings on grounds, {SIZE}×{SIZE} pixels: {len(SUBJECTS)} subjects in two styles, three sizes, five
places, eight grounds in three patterns, one drawing or two. It shows the mechanism; it says nothing about the quality on SDXL or Flux. Apache-2.0,
trained from scratch on the compositor in `compositor.py`. The drawings are Noto Emoji (*glossy*, Apache-2.0) and Fluent Emoji (*flat* and *ink*, MIT); NOTICE has both.
Glossy stickers cast a shadow, flat ones have a white edge, ink lies on white paper (`finish.py`).

- transformer: `SD3Transformer2DModel`, {TRANSFORMER_CONFIG['num_layers']} layers of {width}, patch 2, 16 latent channels; {base['images']:,} images in {base['seconds'] / 60:.0f} minutes, flow
  matching, caption dropout {CAPTION_DROPOUT:.0%}; {UNNAMED:.0%} of the drawings are told by their style's word alone, {RECUT:.0%} of those drawn as the other set has them
- codec: PCA of {PATCH}×{PATCH}×3 patches and a convolutional decoder, {codec['psnr_db']:.1f} dB ({codec['psnr_linear_db']:.1f} dB without the decoder)
- text encoder: {len(WORDS)} words, listed below, and {len(PLACEHOLDERS)} that training never held, for concepts and styles: {' '.join(PLACEHOLDERS)}
- never drawn in training, and their names are no words of the base: for concepts {' '.join(CONCEPTS)}; the style *ink*
- held out: a style of each twelfth subject, and a tenth of all pairs of subjects
- files: {sum(facts['bytes'].values()) / 1e6:.1f} MB in all

What the reader finds right in {drawn["seen"]["pictures"]} samples of each kind ({DEFAULT_STEPS} steps, guidance {DEFAULT_GUIDANCE}), of two drawings each read apart; *both* is the share of pictures with both subjects right.
*cut* is the share of pictures whose nearest render (either set's drawing of the subject in either cut, by the reader's features) is cut as asked. Of a
subject that the base saw in one style only, a picture in the other is composed where its cut is as asked; the drawing inside it is the one that the base knows:

| prompts | {' | '.join(attributes)} | cut | both |
|---|{'---|' * (len(attributes) + 2)}
{chr(10).join(rows)}

The reader's own accuracy on fresh renders, and on the same through the codec; concepts and all styles are among them, and half of the glossy and flat
drawings are the other set's in that style's cut:

| pictures | {' | '.join(attributes)} |
|---|{'---|' * len(attributes)}
{chr(10).join(own)}

Words: {' '.join(WORDS)}.

Made by `python -m sparsedict.tools.make_base`, which writes this page.
"""
