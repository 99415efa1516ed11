"""What an adapter draws itself: rows to distil from where its training pictures are not at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.errors import TrainingError
from .backends.base import Backend
from .batches import Rows, TrainingSet, text_rows
from .callbacks import Callbacks
from .config import TrainConfig
from .data import ConceptData
from .distribution import Processes
from .quiet import CHUNK
from .training_sets import build_sets

PICTURES = 24


def captions_of(adapter: SparseAdapter) -> list[str]:
    """The captions it was trained on where the file has them, else its trigger words. Raises TrainingError where it has neither."""
    training = adapter.metadata.get("training")
    known = training.get("captions") if isinstance(training, dict) else None
    if known:
        return [str(text) for text in known]
    words = adapter.trigger_words
    if not words:
        raise TrainingError("the adapter names no trigger word, so its own pictures cannot be made; give the training images.")
    return [text for word in words for text in (word, f"a {word}")]


def own_rows(
    adapter: SparseAdapter, backend: Backend, captions: Sequence[str], report: Callbacks, seed: int = 0, strength: float = 1.0,
    count: int = PICTURES, at_once: int = PICTURES,
) -> Rows:  # fmt: skip
    """`count` pictures that the base draws with the adapter at `strength`, `at_once` at a time, as latents with their captions, taken in turn."""
    side = backend.default_size // backend.latent_scale
    texts = [captions[i % len(captions)] for i in range(count)]
    noise = torch.randn(count, backend.latent_channels, side, side, generator=torch.Generator().manual_seed(seed))
    report.on_stage("the adapter's own pictures")
    with adapter.attach(backend.denoiser, strength, component=backend.component), torch.no_grad():
        parts = [
            backend.sample(texts[i : i + at_once], noise[i : i + at_once].to(backend.device, backend.dtype)).float().cpu()
            for i in range(0, count, at_once)
        ]
    return text_rows(backend, torch.cat(parts), [[text] for text in texts])


def drawn_at_once(config: TrainConfig) -> int:
    """How many pictures are drawn together: all where a step takes its rows as a whole, else a micro-batch's."""
    return PICTURES if config.rows >= CHUNK else config.rows


def own_sets(rows: Rows, backend: Backend, config: TrainConfig, report: Callbacks) -> list[TrainingSet]:
    """`rows` as the concept's, with quiet rows beside them."""
    # The quiet rows come by the usual way, from a picture that isn't used.
    blank = ConceptData.from_tensors([torch.zeros(3, backend.default_size, backend.default_size)], [[rows.texts[0]]])
    sets, _ = build_sets(config, backend, blank, Processes(backend.device), report)
    return [replace(sets[0], concept=rows)]
